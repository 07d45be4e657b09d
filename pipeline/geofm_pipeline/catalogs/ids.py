"""Granule ids by column: thirty-four bytes each, taken apart by position instead of one by one.

`HLS.L30.T15TWN.2025275T170439.v2.0` costs a tenth of a microsecond; ids of another form, which are rare in HLS
catalogues, go through :class:`geofm_pipeline.hls.granule.GranuleId`, whose rules both ways obey.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from geofm_pipeline.errors import InputError
from geofm_pipeline.hls.bands import SENSOR_CODE, SENSORS
from geofm_pipeline.hls.granule import GranuleId

VERSION = "2.0"
"""Product version that is used: older ones have another fill, other scales and other ids."""
WIDTH = len("HLS.L30.T15TWN.2025275T170439.v2.0")
_FORM = b"HLS.???.T?????.???????T??????.v2.0"
_DIGITS = np.array([9, 10, *range(15, 22), *range(23, 29)])
_SECONDS = 1 << 32
"""Seconds since 1970 in a key: they last until 2106."""
_BAND_LETTERS = "CDEFGHJKLMNPQRSTUVWX"
_COLUMN_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
_ROW_LETTERS = "ABCDEFGHJKLMNPQRSTUV"


@dataclass(frozen=True, kw_only=True)
class ParsedIds:
    """What some ids are; every array has one value per id."""

    is_granule: NDArray[np.bool_]
    """HLS granule of the version that is used, of a tile that exists."""
    other_version: int
    """Granules of another version."""
    year: NDArray[np.int64]
    """Sensing year (UTC); 0 where no granule."""
    key: NDArray[np.uint64]
    """(tile, time, sensor) packed so that keys sort as (tile, time, id) do and are equal only for equal ids; 0 where
    no granule."""


def parse_ids(ids: pa.Array) -> ParsedIds:
    """Take ids apart."""
    total = len(ids)
    found = ParsedIds(
        is_granule=np.zeros(total, dtype=bool),
        other_version=0,
        year=np.zeros(total, dtype=np.int64),
        key=np.zeros(total, dtype=np.uint64),
    )
    wide = np.asarray(pc.fill_null(pc.call_function("binary_length", [ids]), 0)) == WIDTH
    rows = np.flatnonzero(wide)
    good, year, key = _parse_regular(id_bytes(ids if wide.all() else ids.filter(pa.array(wide))))
    found.is_granule[rows], found.year[rows], found.key[rows] = good, year, key
    odd = np.flatnonzero(~found.is_granule)
    other = _parse_odd(ids.take(pa.array(odd)).to_pylist()) if odd.size else 0
    return ParsedIds(is_granule=found.is_granule, other_version=other, year=found.year, key=found.key)


def id_bytes(ids: pa.Array) -> NDArray[np.uint8]:
    """Ids of the regular width as bytes, shape (n, 34)."""
    offsets, data = ids.buffers()[1:]
    if len(ids) == 0 or data is None:
        return np.zeros((0, WIDTH), dtype=np.uint8)
    first = int(np.frombuffer(offsets, dtype=np.int32, count=ids.offset + 1)[-1])
    flat = np.frombuffer(data, dtype=np.uint8, count=first + WIDTH * len(ids))
    return flat[first:].reshape(len(ids), WIDTH)


def tile_numbers(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Number of each key's tile (:func:`geofm_sampling.unit.pack_tile`)."""
    return (keys // np.uint64(2 * _SECONDS)).astype(np.int64)


def seconds_of(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Sensing time of each key, seconds since 1970-01-01 (UTC)."""
    return ((keys >> np.uint64(1)) % np.uint64(_SECONDS)).astype(np.int64)


def sensor_codes(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Sensor of each key as in SENSOR_CODE."""
    return (keys & np.uint64(1)).astype(np.int64)


def _parse_regular(
    text: NDArray[np.uint8],
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.uint64]]:
    """(is a granule, year, key) of ids as bytes, shape (n, 34); the last two are 0 where the first is False."""
    form = np.frombuffer(_FORM, dtype=np.uint8)
    fixed = form != ord("?")
    good = (text[:, fixed] == form[fixed]).all(axis=1)
    sensor = np.full(len(text), -1, dtype=np.int64)
    for name in SENSORS:
        sensor[(text[:, 4:7] == np.frombuffer(name.encode(), dtype=np.uint8)).all(axis=1)] = SENSOR_CODE[name]
    digits = text[:, _DIGITS].astype(np.int64) - ord("0")
    good &= (sensor >= 0) & ((digits >= 0) & (digits <= 9)).all(axis=1)
    tile = _tiles(digits[:, :2], text[:, 11:14])
    good &= tile >= 0
    year, seconds, real = _times(digits[:, 2:])
    good &= real
    key = (tile * (2 * _SECONDS) + seconds * 2 + sensor).astype(np.uint64)
    return good, np.where(good, year, 0), np.where(good, key, np.uint64(0))


def _times(digits: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """(year, seconds since 1970, whether there is such a time before 2106) of the digits YYYYDDDHHMMSS."""
    year = digits[:, :4] @ np.array([1000, 100, 10, 1])
    day = digits[:, 4:7] @ np.array([100, 10, 1])
    hour, minute, second = (digits[:, at : at + 2] @ np.array([10, 1]) for at in (7, 9, 11))
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    real = (year >= 1970) & (year <= 2105) & (day >= 1) & (day <= 365 + leap)
    real &= (hour < 24) & (minute < 60) & (second < 60)
    new_year = np.where(real, year - 1970, 0).astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64)
    return year, (((new_year + day - 1) * 24 + hour) * 60 + minute) * 60 + second, real


def _letter_table(letters: str) -> NDArray[np.int64]:
    table = np.full(256, -1, dtype=np.int64)
    table[[ord(letter) for letter in letters]] = np.arange(len(letters))
    return table


_TABLES = tuple(_letter_table(letters) for letters in (_BAND_LETTERS, _COLUMN_LETTERS, _ROW_LETTERS))


def _tiles(zone_digits: NDArray[np.int64], letters: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Tile numbers, -1 where there is no such tile."""
    zone = zone_digits @ np.array([10, 1])
    band, column, row = (table[letters[:, at]] for at, table in enumerate(_TABLES))
    # Column letters come in three sets of eight, which the zones take in turn.
    good = (zone >= 1) & (zone <= 60) & (band >= 0) & (row >= 0) & (column // 8 == (zone - 1) % 3)
    return np.where(good, ((zone << 5 | band) << 5 | column) << 5 | row, -1)


def _parse_odd(ids: Sequence[str | None]) -> int:
    """How many of the ids, none of them granules of the version that is used, are granules of another."""
    return sum(version not in (None, VERSION) for version in map(_version, ids))


def _version(text: str | None) -> str | None:
    try:
        return GranuleId.parse(str(text)).version
    except (InputError, ValueError):
        return None
