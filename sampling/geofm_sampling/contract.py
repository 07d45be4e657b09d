"""Column contracts: what a table must hold to cross a wall of the house.

A contract is a mapping *column → Arrow type + one sentence*; :meth:`TableContract.check` returns the table with
its columns in the contract's order, or says at once every column that is missing or of the wrong type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a contract."""

    type: pa.DataType
    """Arrow type; a dictionary-encoded column of this value type is accepted too."""
    meaning: str
    """One sentence with the unit."""


@dataclass(frozen=True, kw_only=True)
class TableContract:
    """The columns a table must have; further columns are allowed only under the given prefixes."""

    name: str
    columns: Mapping[str, Column]
    extra_prefixes: tuple[str, ...] = ()
    """Prefixes of columns that may follow the named ones, such as `lc_` for land-cover fractions."""

    def check(self, table: pa.Table) -> pa.Table:
        """Return `table` with the contract's columns first, in order.

        Raises
        ------
        ValueError
            Naming every missing, wrongly typed and unknown column at once.
        """
        present = set(table.column_names)
        missing = [name for name in self.columns if name not in present]
        wrong = [
            f"{name} is {table.schema.field(name).type}, must be {column.type}"
            for name, column in self.columns.items()
            if name in present and not _same_type(table.schema.field(name).type, column.type)
        ]
        extra = [name for name in table.column_names if name not in self.columns]
        unknown = [name for name in extra if not name.startswith(self.extra_prefixes or ("\0",))]
        if missing or wrong or unknown:
            raise ValueError(
                f"the {self.name} table breaks its contract: missing {missing or 'none'}, "
                f"wrong type {wrong or 'none'}, unknown {unknown or 'none'}; "
                f"its columns must be {', '.join(self.columns)}"
            )
        return table.select([*self.columns, *extra])

    def describe(self, table: pa.Table) -> pa.Table:
        """A checked table whose fields carry their sentence as metadata `meaning`, so that a file explains itself."""
        table = self.check(table)
        fields = [
            field.with_metadata({"meaning": self.columns[field.name].meaning}) if field.name in self.columns else field
            for field in table.schema
        ]
        return table.cast(pa.schema(fields, metadata=table.schema.metadata))

    def schema(self) -> pa.Schema:
        """The contract as an Arrow schema, each sentence as field metadata `meaning`."""
        return pa.schema([pa.field(name, c.type, metadata={"meaning": c.meaning}) for name, c in self.columns.items()])


def _same_type(actual: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_dictionary(actual):
        actual = actual.value_type
    return bool(actual == wanted)
