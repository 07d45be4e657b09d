"""The work on one chip: its encoded chunks, its valid pixels and its exact sums, one task of a thread pool."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from geofm_pipeline.chips import Chip, ChipFailure, ChipRequest
from geofm_pipeline.store.codec import Chunk, ChunkEncoder
from geofm_pipeline.store.layout import ArrayLayout
from geofm_pipeline.store.parts import Tombstone
from geofm_pipeline.store.shards import ARRAYS
from geofm_pipeline.store.spec import TOMBSTONE, StoreSpec
from geofm_pipeline.store.sums import BandSums, chip_sums


@dataclass(frozen=True, kw_only=True)
class RowRequest:
    """A chip to read and the row of the store it goes to; small and picklable."""

    index: int
    """Global sample index: shard × K + row."""
    chip: ChipRequest
    split: int = 0
    """0 train, 1 held-out, 2 test."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """What remains of a chip once its chunks are written."""

    request: RowRequest
    valid_pixels: tuple[int, ...]
    """Valid pixels of each date."""
    sums: BandSums | None
    """None for a tombstone."""
    tombstone: Tombstone | None

    @property
    def split(self) -> int:
        """What the store's `split` says of this row."""
        return TOMBSTONE if self.tombstone is not None else self.request.split


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A chip whose pixels are no longer needed."""

    account: Account
    chunks: Mapping[str, Chunk | None]
    """By array; None where all is fill, {} for a tombstone."""


class Workbench:
    """Encoders and threads of one group; a chip is one task, whose pixels stay in the cache of one core."""

    def __init__(self, spec: StoreSpec, layouts: Mapping[str, ArrayLayout], threads: int) -> None:
        self._spec = spec
        self._encoders = {name: ChunkEncoder(layouts[name]) for name in ARRAYS}
        self._pool = ThreadPoolExecutor(threads)

    def __enter__(self) -> Workbench:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def submit(self, request: RowRequest, answer: Chip | ChipFailure) -> Future[Finished]:
        """Start the work on one answer of the reader."""
        assert answer.unit == request.chip.unit, f"the reader answered unit {answer.unit} for {request.chip.unit}"
        if isinstance(answer, ChipFailure):
            return self._pool.submit(_bury, self._spec, request, answer)
        _check_chip(self._spec, answer)
        return self._pool.submit(self._work, request, answer)

    def _work(self, request: RowRequest, chip: Chip) -> Finished:
        chunks = {
            "image": self._encoders["image"].encode(chip.image),
            "fmask": self._encoders["fmask"].encode(chip.fmask),
        }
        account = _account(self._spec, request, chip)
        return Finished(account=account, chunks=chunks)


def _check_chip(spec: StoreSpec, chip: Chip) -> None:
    """What a reader owes."""
    assert chip.image.shape == spec.image_shape, f"image {chip.image.shape}, store {spec.image_shape}"
    assert chip.fmask.shape == spec.fmask_shape, f"fmask {chip.fmask.shape}, store {spec.fmask_shape}"
    assert chip.image.dtype == np.int16, "image must be int16 counts"
    assert chip.fmask.dtype == np.uint8, "fmask must be the raw byte"


def _account(spec: StoreSpec, request: RowRequest, chip: Chip) -> Account:
    pixels, sums = chip_sums(chip.image, chip.fmask, spec.mask_rule)
    return Account(request=request, valid_pixels=pixels, sums=sums, tombstone=None)


def _bury(spec: StoreSpec, request: RowRequest, failure: ChipFailure) -> Finished:
    """A permanent failure becomes a tombstone; a transient one is raised, for the group to be tried again."""
    error = failure.error
    if error.transient:
        raise error
    stone = Tombstone(
        index=request.index, unit=request.chip.unit, granule=error.granule, band=error.band, cause=error.cause
    )
    account = Account(request=request, valid_pixels=(0,) * spec.timesteps, sums=None, tombstone=stone)
    return Finished(account=account, chunks={})
