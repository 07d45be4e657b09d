"""What was measured of an archive, kept in one Parquet file per tile so that a later run reads nothing again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from geofm_pipeline.errors import InputError
from geofm_pipeline.workspace import write_parquet
from geofm_sampling.contract import TableContract


class TileCache:
    """Tables of one contract in a folder, by tile.

    Parameters
    ----------
    folder : made when the first table is written
    contract : of every table
    order : columns that rows are sorted by, so that equal contents are equal bytes
    """

    def __init__(self, folder: Path, contract: TableContract, *, order: Sequence[str]) -> None:
        self._folder, self._contract, self._order = folder, contract, order

    def read(self, tile: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of a tile, all columns or some; none if nothing is kept.

        Raises
        ------
        InputError
            When the file is damaged or of another contract, with the remedy.
        """
        path, schema = self._path(tile), self._contract.schema()
        names = list(columns or self._contract.columns)
        if not path.exists():
            return schema.empty_table().select(names)
        try:
            with pq.ParquetFile(path) as file:
                self._contract.check(file.schema_arrow.empty_table())
                table = file.read(columns=names)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(
                f"the {self._contract.name} cache {path} cannot be read ({error}): delete this file, "
                "and what it held is read again"
            ) from None
        return table.select(names).cast(pa.schema([schema.field(name) for name in names]))

    def write(self, tile: str, table: pa.Table) -> None:
        """Replace the rows of a tile at once.

        Raises
        ------
        ResourceError
            When the disk is full.
        """
        write_parquet(self._path(tile), table.sort_by([(name, "ascending") for name in self._order]))

    def _path(self, tile: str) -> Path:
        return self._folder / f"{tile}.parquet"
