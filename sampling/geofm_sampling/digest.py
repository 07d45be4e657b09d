"""A digest of a table's contents: equal for equal rows and metadata, whatever the chunks, encodings and files."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
from pyarrow.compute import call_function


def table_digest(table: pa.Table) -> str:
    """SHA-256, hexadecimal, of the `geofm` metadata, column names, types and values in order.

    Dictionary encoding, chunking and the file format do not matter; the order of rows and columns does. NaN equals
    NaN. Nulls are not allowed.
    """
    total = hashlib.sha256((table.schema.metadata or {}).get(b"geofm", b""))
    for name in table.column_names:
        total.update(f"\n{name}\n".encode())
        _add(total, table[name].combine_chunks(), name)
    return total.hexdigest()


def _add(total: hashlib._Hash, values: pa.Array, name: str) -> None:
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if values.null_count:
        raise ValueError(f"column {name} holds {values.null_count} nulls; tables of the design have none")
    total.update(f"{values.type} {len(values)} ".encode())
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        total.update(_lengths(values, "list_value_length"))
        _add(total, values.flatten(), name)
    elif pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        total.update(_lengths(values, "binary_length"))
        total.update("".join(values.to_pylist()).encode())
    else:
        numbers = np.ascontiguousarray(values.to_numpy(zero_copy_only=False))
        total.update(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes())


def _lengths(values: pa.Array, function: str) -> bytes:
    lengths = call_function(function, [values])
    return np.asarray(lengths.to_numpy(zero_copy_only=False), dtype="<i8").tobytes()
