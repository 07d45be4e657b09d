"""The rows of a SceneTable while a search goes on, by column and small, and the table that is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from geofm_pipeline.catalogs.hrefs import Located
from geofm_pipeline.catalogs.ids import id_bytes, seconds_of, sensor_codes
from geofm_pipeline.hls.bands import SENSORS
from geofm_pipeline.scenes import SCENES

T = TypeVar("T")
_CHUNK = 1 << 17
"""Rows of one chunk of the table: its columns are made chunk by chunk, so that nothing large is held twice."""
_TILE = slice(9, 14)
"""Where the tile stands in an id."""


@dataclass(kw_only=True)
class Kept:
    """Rows in the order in which they were found."""

    templates: list[str]
    """Texts of the templates by number; grows while rows are added."""
    _ids: list[NDArray[np.uint8]] = field(default_factory=list)
    _keys: list[NDArray[np.uint64]] = field(default_factory=list)
    _cloud: list[NDArray[np.float32]] = field(default_factory=list)
    _footprints: list[pa.Array] = field(default_factory=list)
    _template: list[NDArray[np.int32]] = field(default_factory=list)
    _overrides: dict[int, list[tuple[str, str]]] = field(default_factory=dict)
    _missing: dict[int, list[str]] = field(default_factory=dict)
    _rows: int = 0

    def add(
        self,
        *,
        ids: pa.Array,
        keys: NDArray[np.uint64],
        cloud_cover: NDArray[np.float64],
        footprints: NDArray[np.object_],
        located: Located,
    ) -> None:
        """Add rows; ids are of the regular width, footprints repaired."""
        self._ids.append(id_bytes(ids).copy())
        self._keys.append(keys)
        self._cloud.append(cloud_cover.astype(np.float32))
        self._footprints.append(pa.array(shapely.to_wkb(footprints), pa.large_binary()))
        self._template.append(located.template)
        self._overrides.update({self._rows + row: hrefs for row, hrefs in located.overrides.items()})
        self._missing.update({self._rows + row: absent for row, absent in located.missing.items()})
        self._rows += len(ids)

    def table(self) -> pa.Table:
        """SCENES of the rows, sorted; the rows are given up."""
        keys = np.concatenate(self._keys)
        order = np.argsort(keys)
        ids, cloud, template = np.concatenate(self._ids), np.concatenate(self._cloud), np.concatenate(self._template)
        footprints = pa.concat_arrays(self._footprints)
        self._ids, self._cloud, self._template, self._footprints, self._keys = [], [], [], [], []
        texts = pa.array(self.templates, pa.string())
        parts = []
        for start in range(0, order.size, _CHUNK):
            rows = order[start : start + _CHUNK]
            columns = {
                "granule_id": _fixed(ids[rows]),
                "sensor": pa.array(np.array(SENSORS)[sensor_codes(keys[rows])], pa.string()),
                "tile": _fixed(ids[rows][:, _TILE]),
                "time": pa.array(1000 * seconds_of(keys[rows]), pa.timestamp("ms", tz="UTC")),
                "cloud_cover": pa.array(cloud[rows], pa.float32()),
                "footprint": footprints.take(pa.array(rows)).cast(pa.binary()),
                "href_template": texts.take(pa.array(template[rows])),
                "hrefs": self._map(rows),
                "missing": self._lists(rows),
            }
            parts.append(pa.RecordBatch.from_arrays([columns[name] for name in SCENES.columns], schema=SCENES.schema()))
        return pa.Table.from_batches(parts, schema=SCENES.schema())

    def _map(self, rows: NDArray[np.int64]) -> pa.Array:
        offsets, values = _sparse(rows, self._overrides)
        keys, hrefs = ([pair[at] for pair in values] for at in (0, 1))
        return pa.MapArray.from_arrays(offsets, pa.array(keys, pa.string()), pa.array(hrefs, pa.string()))

    def _lists(self, rows: NDArray[np.int64]) -> pa.Array:
        offsets, values = _sparse(rows, self._missing)
        return pa.ListArray.from_arrays(offsets, pa.array(values, pa.string()))


def _fixed(text: NDArray[np.uint8]) -> pa.Array:
    """Strings of bytes of one width, shape (n, width)."""
    count, width = text.shape
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(width)
    data = np.ascontiguousarray(text)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(data))


def _sparse(rows: NDArray[np.int64], lists: Mapping[int, list[T]]) -> tuple[pa.Array, list[T]]:
    """(offsets, values) of one list per row, where most are empty."""
    counts = np.zeros(rows.size, dtype=np.int32)
    values: list[T] = []
    if lists:
        for at, row in enumerate(rows.tolist()):
            if row in lists:
                counts[at] = len(lists[row])
                values += lists[row]
    return pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)), values
