"""A user's table of images as rows of text: CSV or Parquet in, what cannot be a table of images refused.

A CSV is UTF-8 with commas, and its first line with words in it names the columns. What a cell must be is said in
listing.py.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from geofm_pipeline.errors import InputError, NothingFoundError
from geofm_pipeline.importing.words import listed, nearest

SUFFIXES = (".csv", ".parquet")
OTHER_TABLES = (".xlsx", ".xls", ".ods", ".tsv")
"""Of programs that can save CSV."""
COLUMNS = ("file", "date", "place", "band", "mask", "stratum", "sensor")
"""Of a table; all but file may be absent."""
_WRONG_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table."""

    where: str
    """`line 2` of a CSV, where an editor shows it, `row 1` of a Parquet table."""
    cells: dict[str, str]
    """Text by column, '' for what is empty; always with `file`."""


def read_rows(source: Path) -> tuple[list[Row], tuple[str, ...]]:
    """The rows of a table, and sentences on columns that are not used.

    Raises
    ------
    InputError
        When it cannot be read, has no column file, or has a column twice.
    NothingFoundError
        When it has no row.
    """
    try:
        names, rows = _of_parquet(source) if source.suffix.lower() == ".parquet" else _of_csv(source)
    except UnicodeDecodeError as error:
        raise InputError(
            f"--images {source} is not UTF-8 text ({error.reason} at byte {error.start}): save it as CSV in UTF-8"
        ) from error
    except (OSError, csv.Error, pa.ArrowException) as error:
        raise InputError(f"--images {source} cannot be read: {error}; write it again as CSV or Parquet") from error
    _check_columns(source, names)
    if not rows:
        raise NothingFoundError(
            f"--images {source} names its columns ({listed(names)}) and has no row below them: write one row per image"
        )
    unused = [name for name in names if name not in COLUMNS]
    hints = [f"{name} may be meant to be {near}" for name in unused if (near := nearest(name, COLUMNS))]
    said = f"the columns {', '.join(unused)} of {source.name} are not used{'; ' if hints else ''}{', '.join(hints)}"
    return rows, (said,) if unused else ()


def _of_csv(source: Path) -> tuple[list[str], list[Row]]:
    with source.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.reader(stream)
        lines = ([value.strip() for value in values] for values in reader)
        names = next((line for line in lines if any(line)), [])
        rows = []
        for cells in lines:
            if not any(cells):
                continue
            where = f"line {reader.line_num}"
            if any(cells[len(names) :]):
                raise InputError(
                    f"--images {source}, {where} has {len(cells)} values, the first line names {len(names)} columns: "
                    "put a value with a comma in it into double quotes"
                )
            cells += [""] * (len(names) - len(cells))
            rows.append(Row(where=where, cells=dict(zip(names, cells, strict=False))))
    return names, rows


def _of_parquet(source: Path) -> tuple[list[str], list[Row]]:
    table = pq.read_table(source)
    columns = {name: _as_text(table[name]) for name in table.column_names}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return table.column_names, [Row(where=f"row {number}", cells=row) for number, row in enumerate(rows, start=1)]


def _as_text(column: pa.ChunkedArray) -> Sequence[str]:
    """Cells as text; 3.0 is 3, since programs make decimals of whole numbers where a cell is empty."""
    values = (int(value) if isinstance(value, float) and value.is_integer() else value for value in column.to_pylist())
    return ["" if value is None or value != value else str(value).strip() for value in values]


def _check_columns(source: Path, names: Sequence[str]) -> None:
    if not any(names):
        raise InputError(f"--images {source} is empty: its first line names the columns ({', '.join(COLUMNS)})")
    twice = sorted({name for name in names if name in COLUMNS and names.count(name) > 1})
    if twice:
        raise InputError(f"--images {source} has the column {twice[0]} twice: rename or remove one of them")
    if "file" in names:
        return
    separator = next((word for sign, word in _WRONG_SEPARATORS.items() if len(names) == 1 and sign in names[0]), None)
    if separator is not None:
        raise InputError(f"--images {source} has {separator} between its columns ({names[0]!r}): use commas")
    wrong = nearest("file", names) or "the one with the paths"
    raise InputError(
        f"--images {source} has no column file; it has {listed(names)}: rename {wrong} to file (a CSV names its "
        "columns in the first line)"
    )
