"""Which chips of which images become samples, in which row and split: settled before the first pixel is written.

Every image is cut from its upper left corner into squares of `chip_size`; what is left at the right and lower edge is
not used. Of each square the dates with enough valid pixels are taken in order of time, T at a time: nine good dates
give two samples of four, and the last is left out. Costs one read of all pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_pipeline.cluster import Runner
from geofm_pipeline.errors import InputError, NothingFoundError
from geofm_pipeline.hls.bands import FILL
from geofm_pipeline.hls.fmask import DEFAULT_RULE
from geofm_pipeline.importing.config import LEAST_CHIP, ImportConfig
from geofm_pipeline.importing.images import Image, by_place
from geofm_pipeline.importing.places import Georeference, held_out, near_held_out
from geofm_pipeline.importing.reader import ImageReader, Meaning
from geofm_pipeline.importing.scaling import dark_counts, too_few_counts
from geofm_pipeline.importing.tables import chosen_table, sensor_codes, wkb
from geofm_pipeline.importing.units import unit_ids
from geofm_pipeline.importing.words import counted
from geofm_pipeline.progress import Progress
from geofm_pipeline.store import assign_rows
from geofm_pipeline.store.sums import valid_pixels


@dataclass(frozen=True, kw_only=True)
class MeasureTask:
    """One image whose chips are to be measured."""

    image: Image
    size: int
    """Edge of a chip in pixels."""
    meaning: Meaning


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the pixels of one image are."""

    shares: NDArray[np.float32]
    """Share of valid pixels of each whole chip, shape (rows, cols) of chips."""
    counts: tuple[int, int] | None
    """Lowest and highest count of all its chips; None where nothing is there."""


def measure(task: MeasureTask) -> Measured:
    """Read all chips of one image once."""
    size, grid = task.size, task.image.grid
    down, across = grid.height // size, grid.width // size
    shares = np.zeros((down, across), dtype=np.float32)
    reader, ranges = ImageReader(task.meaning), list[tuple[int, int]]()
    try:
        for at in range(down if across else 0):
            image, fmask = reader.read(task.image, row=at * size, col=0, height=size, width=across * size)
            valid = valid_pixels(image[None], fmask[None], DEFAULT_RULE)[0]
            shares[at] = valid.reshape(size, across, size).mean(axis=(0, 2))
            there = image[image != FILL]
            ranges += [(int(there.min()), int(there.max()))] if there.size else []
    finally:
        reader.rasters.close()
    return Measured(shares=shares, counts=_joined(ranges))


def _joined(ranges: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """The range that covers all of some."""
    return (min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None


def measure_all(
    images: Sequence[Image], config: ImportConfig, meaning: Meaning, runner: Runner, progress: Progress
) -> list[Measured]:
    """:func:`measure` of all images, in their order."""
    tasks = [MeasureTask(image=image, size=config.chip_size, meaning=meaning) for image in images]
    results = runner.run(measure, tasks)
    found = dict(progress.count(results, total=len(tasks), label="plan: valid pixels", unit="images"))
    return [found[at] for at in range(len(images))]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the plan chose, and what it left out."""

    table: pa.Table
    """CHOSEN."""
    places: int
    """With samples."""
    heldout_places: tuple[str, ...]
    facts: Mapping[str, int]
    """Chips and dates by what became of them."""
    said: tuple[str, ...]
    """Sentences for the user."""


def check_possible(images: Sequence[Image], config: ImportConfig) -> None:
    """Raise NothingFoundError where size and dates of images say that no sample can come of them; reads no pixel."""
    places = by_place(images).values()
    why = _hopeless(places, config)
    if why:
        raise NothingFoundError(_without_sample(places, why))


def check_counts(measured: Sequence[Measured], config: ImportConfig) -> str | None:
    """A sentence where the counts of all images together are hardly reflectance × 10,000, else None.

    Raises
    ------
    InputError
        When --scale leaves nothing of the values.
    """
    counts = _joined([one.counts for one in measured if one.counts is not None])
    if counts is None:
        return None
    lost = too_few_counts(*counts, config.scale, config.offset)
    if lost is not None:
        raise InputError(lost)
    return dark_counts(*counts, config.scale, config.offset)


def choose(images: Sequence[Image], measured: Sequence[Measured], config: ImportConfig) -> Choice:
    """Samples of measured images.

    Raises
    ------
    NothingFoundError
        When nothing is left to train on.
    InputError
        When places cannot be held out, or two chips get one id.
    """
    valid = {image.name: one.shares for image, one in zip(images, measured, strict=True)}
    grounds = [_Ground(mine, valid, config) for mine in by_place(images).values()]
    used = [ground for ground in grounds if ground.samples]
    if not used:
        raise NothingFoundError(_nothing([ground.images for ground in grounds], config))
    heldout = held_out([ground.place for ground in used], config.heldout, config.seed)
    columns, near = _columns(used, heldout, config)
    if not np.any(columns["split"] == 0):
        raise NothingFoundError(
            f"no training chip is left: all touch the ground of the held-out places ({', '.join(sorted(heldout))}); "
            "lower --heldout"
        )
    facts = {
        "images": len(images),
        "places": len(grounds),
        "chips": sum(ground.chips for ground in grounds),
        "chips_without_dates": sum(ground.empty for ground in grounds),
        "dates_not_valid": sum(ground.not_valid for ground in grounds),
        "dates_left_over": sum(ground.left_over for ground in grounds),
        "near_heldout": near,
    }
    return Choice(
        table=chosen_table(columns),
        places=len(used),
        heldout_places=tuple(sorted(heldout)),
        facts=facts,
        said=tuple(_said(grounds, near, config)),
    )


class _Ground:
    """The chips of one place."""

    def __init__(self, images: Sequence[Image], valid: Mapping[str, NDArray[np.float32]], config: ImportConfig) -> None:
        self.images, self.place = images, images[0].place
        stack = np.stack([valid[image.name] for image in images])
        good = stack >= np.float32(config.min_valid)
        self.chips = int(stack[0].size)
        self.short = len(images) < config.timesteps
        self.not_valid = int(good.size - good.sum())
        self.samples: list[tuple[int, int, tuple[int, ...]]] = []
        """(row, column) in chips, and positions of the dates."""
        self.empty = self.left_over = 0
        size = config.timesteps
        for row, col in np.ndindex(*stack.shape[1:]):
            dates = np.flatnonzero(good[:, row, col]).tolist()
            runs = [tuple(dates[at : at + size]) for at in range(0, len(dates) - size + 1, size)]
            self.samples += [(row, col, run) for run in runs]
            self.empty += not runs
            self.left_over += len(dates) - size * len(runs)

    @property
    def georeference(self) -> Georeference:
        return Georeference(self.images[0].grid, self.images[0].bands[0].path)


def _columns(
    grounds: Sequence[_Ground], heldout: frozenset[str], config: ImportConfig
) -> tuple[dict[str, NDArray[np.generic] | list[object]], int]:
    """Columns of CHOSEN, and how many training chips lie too near held-out ground to be used."""
    parts = [_place_columns(ground, ground.place in heldout, config.chip_size) for ground in grounds]
    whole = [ground.georeference.whole() for ground in grounds if ground.place in heldout]
    joined = {name: [value for part in parts for value in part[name]] for name in parts[0]}
    split, polygons = np.array(joined["split"]), np.array(joined.pop("polygon"), dtype=object)
    near = near_held_out(polygons, whole) & (split == 0)
    keep = np.flatnonzero(~near).tolist()
    columns: dict[str, NDArray[np.generic] | list[object]] = {
        name: [values[at] for at in keep] for name, values in joined.items()
    }
    rows, cols = (np.array(columns[name], dtype=np.int64) for name in ("image_row", "image_col"))
    units = unit_ids([str(name) for name in columns["file"]], rows, cols, config.chip_size)
    shard, row = assign_rows(
        units, np.array(columns["stratum"], dtype=np.int32), seed=config.seed, group_shards=config.group_shards
    )
    return {
        **columns,
        "geometry": wkb(polygons[keep]),
        "unit": units,
        "shard": shard,
        "row": row,
        "split": split[keep],
    }, int(near.sum())


def _place_columns(ground: _Ground, heldout: bool, size: int) -> dict[str, list[object]]:
    """Columns of one place's samples, with its polygons."""
    rows = np.array([row for row, _, _ in ground.samples]) * size
    cols = np.array([col for _, col, _ in ground.samples]) * size
    taken = [[ground.images[at] for at in run] for _, _, run in ground.samples]
    where = ground.georeference
    lon, lat = where.centres(rows, cols, size)
    n = len(taken)
    return {
        "place": [ground.place] * n,
        "file": [images[0].name for images in taken],
        "image_row": rows.tolist(),
        "image_col": cols.tolist(),
        "lon": lon.tolist(),
        "lat": lat.tolist(),
        "stratum": [ground.images[0].stratum] * n,
        "granules": [[image.name for image in images] for images in taken],
        "dates": [[image.day for image in images] for images in taken],
        "sensors": [sensor_codes(images) for images in taken],
        "split": [int(heldout)] * n,
        "polygon": list(where.footprints(rows, cols, size, size)),
    }


def _nothing(places: Collection[Sequence[Image]], config: ImportConfig) -> str:
    """Why no image gives a sample, although they are large enough and of enough dates."""
    dates = counted(config.timesteps, "date")
    why = f"no chip has {dates} with {config.min_valid:.0%} of its pixels valid: lower --timesteps or --min-valid"
    return _without_sample(places, _hopeless(places, config) or why)


def _hopeless(places: Collection[Sequence[Image]], config: ImportConfig) -> str:
    """Why images cannot give a sample whatever their pixels are, '' where they can."""
    grids = [images[0].grid for images in places]
    largest = max(grids, key=lambda grid: min(grid.height, grid.width))
    edge, most = min(largest.height, largest.width), max(len(images) for images in places)
    if edge < config.chip_size:
        lower = f"lower --chip-size {config.chip_size} to {edge}" if edge >= LEAST_CHIP else "too small for any chip"
        return f"the largest is {largest.height} × {largest.width} px: {lower}"
    if most < config.timesteps:
        dates = counted(config.timesteps, "date")
        return f"a sample needs {dates}, and no place has more than {most}: lower --timesteps"
    return ""


def _without_sample(places: Collection[Sequence[Image]], why: str) -> str:
    return f"{counted(len(places), 'place')} without any sample: {why}"


def _said(grounds: Sequence[_Ground], near: int, config: ImportConfig) -> Iterator[str]:
    """What was left out, one sentence each."""
    dates = counted(config.timesteps, "date")
    short = [ground for ground in grounds if ground.short]
    if short:
        yield f"no sample of {counted(len(short), 'place')} with fewer than {dates}: {_named(short)}"
    small = [ground for ground in grounds if not ground.chips]
    if small:
        yield f"no sample of {counted(len(small), 'place')} smaller than {config.chip_size} px: {_named(small)}"
    empty = sum(ground.empty for ground in grounds if not ground.short)
    if empty:
        yield f"no sample of {counted(empty, 'chip')} with fewer than {dates} with {config.min_valid:.0%} valid pixels"
    left_over = sum(ground.left_over for ground in grounds if not ground.short)
    if left_over:
        yield f"{counted(left_over, 'valid date')} of chips left over, too few for one more sample of {dates}"
    if near:
        yield f"{counted(near, 'training sample')} left out for touching held-out ground"


def _named(grounds: Sequence[_Ground]) -> str:
    names = ", ".join(ground.place for ground in grounds[:5])
    return f"{names}, …" if len(grounds) > 5 else names
