"""The pixels of a fake dataset, from a formula, and its stores, written by zarr-python."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray

SIZE, DATES = 64, 3
BANDS = ("blue", "green", "red", "nir_narrow", "swir1", "swir2")


def pixels(unit: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Image [T, B, H, W] and fmask [T, H, W] of a unit: hills, a cloud and its shadow, some a corner without data."""
    rng = np.random.default_rng(unit % 2**32)
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    image, fmask = np.zeros((DATES, len(BANDS), SIZE, SIZE)), np.full((DATES, SIZE, SIZE), 64, np.uint8)
    phase = rng.uniform(0, 6, 6)
    field = np.sin(7 * x + phase[0]) * np.cos(6 * y + phase[1]) + 0.4 * np.sin(19 * x + 23 * y + phase[2])
    rough = 0.06 * rng.standard_normal((SIZE, SIZE))
    for date in range(DATES):
        green = 0.5 + 0.4 * np.sin(date * 2 + phase[3])
        soil = np.clip(0.5 + 0.35 * field + rough, 0, 1)
        base = (
            np.array([0.04, 0.06, 0.05, 0.25, 0.15, 0.08])[:, None, None]
            + soil * np.array([0.04, 0.05 + 0.02 * green, 0.09 - 0.05 * green, 0.10, 0.16, 0.14])[:, None, None]
        )
        cx, cy, radius = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9), rng.uniform(0.05, 0.3)
        cloud = np.clip(1.3 - np.hypot(x - cx, y - cy) / radius + 2 * rough, 0, 1)
        image[date] = base * (1 - cloud) + 0.55 * cloud
        fmask[date][cloud > 0.15] |= 2
        shadow = (np.hypot(x - cx - 0.12, y - cy - 0.1) < radius) & (cloud <= 0.15)
        image[date][:, shadow] *= 0.55
        fmask[date][shadow] |= 8
    counts = np.round(image * 10_000).astype(np.int16)
    if unit % 5 == 0:
        gone = x + y > 1.8
        counts[:, :, gone], fmask[:, gone] = -9999, 255
    return counts, fmask


def write_store(path: Path, drawn: pa.Table) -> int:
    """The pixels of the drawn units, two of them tombstones."""
    store = zarr.open_group(str(path), mode="w", zarr_format=3)
    n = drawn.num_rows
    image = store.create_array(
        "image", shape=(n, DATES, len(BANDS), SIZE, SIZE), chunks=(1, DATES, len(BANDS), SIZE, SIZE), dtype="int16",
        fill_value=-9999, chunk_key_encoding={"name": "default", "separator": "."},
    )  # fmt: skip
    fmask = store.create_array(
        "fmask", shape=(n, DATES, SIZE, SIZE), chunks=(1, DATES, SIZE, SIZE), dtype="uint8", fill_value=255
    )
    for index, unit in enumerate(drawn["unit"].to_pylist()):
        if index not in FAILED:
            image[index], fmask[index] = pixels(unit)
    store.attrs["geofm"] = {"shard_size": 8, "valid_pixel": {"bits": ["cloud", "adjacent", "shadow"]}}
    return len(FAILED)


FAILED = (3, 11)
"""Samples whose pixels could not be read."""
CAUSE = "HLS.L30.T10SFG.2022100T184500.v2.0 B04: HTTP 404"


def valid_counts(units: Iterable[int]) -> NDArray[np.int64]:
    """Raw counts of the valid pixels of some chips, shape (B, pixels)."""
    found = [np.empty((len(BANDS), 0), np.int64)]
    for unit in units:
        image, fmask = pixels(unit)
        for date in range(DATES):
            valid = (image[date] != -9999).all(axis=0) & (fmask[date] != 255) & (fmask[date] & 14 == 0)
            found.append(image[date][:, valid].astype(np.int64))
    return np.concatenate(found, axis=1)


def seal_store(path: Path, units: Iterable[int], digest: str) -> None:
    """What the root document of a finished store says; `units` are its written training chips."""
    counts = valid_counts(units)
    bands = {
        name: {
            "count": str(row.size),
            "sum": str(row.sum()),
            "sum_of_squares": str((row**2).sum()),
            "nonpositive": str((row <= 0).sum()),
        }
        for name, row in zip(BANDS, counts, strict=True)
    }
    store = zarr.open_group(str(path), mode="r+")
    facts = dict(store.attrs["geofm"])  # type: ignore[arg-type]
    facts |= {"scale": 1e-4, "statistics": {"train": {"bands": bands}}, "digest": digest, "complete": True}
    store.attrs["geofm"] = facts
