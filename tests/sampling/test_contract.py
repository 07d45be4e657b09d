"""Table contracts and digests."""

from __future__ import annotations

import pyarrow as pa
import pytest

from geofm_sampling import Column, TableContract, table_digest

CONTRACT = TableContract(
    name="toy",
    columns={
        "tile": Column(type=pa.string(), meaning="MGRS tile"),
        "n": Column(type=pa.int32(), meaning="a count"),
    },
    extra_prefixes=("lc_",),
)


def toy(n: int = 3) -> pa.Table:
    return pa.table({"n": pa.array(range(n), pa.int32()), "tile": ["a"] * n, "lc_10": [0.5] * n})


def test_check_orders_columns_and_keeps_allowed_extras() -> None:
    """The contract's columns come first, in its order; extras need an allowed prefix."""
    assert CONTRACT.check(toy()).column_names == ["tile", "n", "lc_10"]


def test_a_dictionary_of_the_right_value_type_passes() -> None:
    """Encoding is not type."""
    table = toy().set_column(1, "tile", toy()["tile"].dictionary_encode())
    assert CONTRACT.check(table).num_rows == 3


def test_all_faults_are_named_at_once() -> None:
    """Missing, wrong and unknown columns stand in one message."""
    table = pa.table({"n": pa.array([1], pa.int64()), "surprise": [1]})
    with pytest.raises(ValueError, match=r"missing \['tile'\].*n is int64, must be int32.*unknown \['surprise'\]"):
        CONTRACT.check(table)


def test_schema_carries_the_sentences() -> None:
    """A written table explains its columns."""
    assert CONTRACT.schema().field("n").metadata == {b"meaning": b"a count"}


def test_digest_depends_on_content_only() -> None:
    """Chunks, encodings and NaN do not change a digest; order, values, names and design metadata do."""
    table = toy(4)
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    encoded = table.set_column(1, "tile", table["tile"].dictionary_encode())
    assert table_digest(table) == table_digest(chunked) == table_digest(encoded)
    others = [
        table.take([1, 0, 2, 3]),
        table.rename_columns(["m", "tile", "lc_10"]),
        table.replace_schema_metadata({"geofm": "{}"}),
        table.slice(1),
        table.select(["tile", "n", "lc_10"]),
    ]
    assert len({table_digest(t) for t in [table, *others]}) == 6


def test_digest_reads_lists_and_refuses_nulls() -> None:
    """Lists of equal flattened values but other lengths differ; a null is an error."""
    one = pa.table({"x": pa.array([[1], [2, 3]], pa.list_(pa.int32()))})
    two = pa.table({"x": pa.array([[1, 2], [3]], pa.list_(pa.int32()))})
    words = [pa.table({"x": value}) for value in (["ab", "c"], ["a", "bc"])]
    assert table_digest(one) != table_digest(two)
    assert table_digest(words[0]) != table_digest(words[1])
    assert table_digest(one.slice(1)) == table_digest(pa.table({"x": pa.array([[2, 3]], pa.list_(pa.int32()))}))
    with pytest.raises(ValueError, match="1 nulls"):
        table_digest(pa.table({"x": [None, 1]}))
