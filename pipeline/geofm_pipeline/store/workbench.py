"""The work on one chip: its encoded chunks, its valid pixels and its exact sums, on threads."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.chips import Chip, ChipFailure, ChipRequest
from geofm_pipeline.store.codec import ChunkEncoder
from geofm_pipeline.store.layout import ArrayLayout
from geofm_pipeline.store.parts import Tombstone
from geofm_pipeline.store.shards import ARRAYS
from geofm_pipeline.store.spec import TOMBSTONE, StoreSpec
from geofm_pipeline.store.sums import BandSums, chip_sums, valid_pixels


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
    """What remains of a chip once its chunks are in the scratch file."""

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
class InWork:
    """A chip whose chunks and account are being made."""

    index: int
    chunks: Mapping[str, Future[bytes | None]]
    """By array; None where all is fill."""
    account: Future[Account]


class Workbench:
    """Encoders and threads of one group; sums are made beside the encoding, so that neither waits for the other."""

    def __init__(self, spec: StoreSpec, layouts: Mapping[str, ArrayLayout], threads: int) -> None:
        self._spec = spec
        self._encoders = {name: ChunkEncoder(layouts[name]) for name in ARRAYS}
        self._encoding = ThreadPoolExecutor(threads)
        self._accounting = ThreadPoolExecutor(-(-threads // 3))  # sums take about a third of the time of encoding

    def __enter__(self) -> Workbench:
        return self

    def __exit__(self, *error: object) -> None:
        self._encoding.shutdown(cancel_futures=True)
        self._accounting.shutdown(cancel_futures=True)

    def submit(self, request: RowRequest, answer: Chip | ChipFailure) -> InWork:
        """Start the work on one answer of the reader."""
        assert answer.unit == request.chip.unit, f"the reader answered unit {answer.unit} for {request.chip.unit}"
        if isinstance(answer, ChipFailure):
            account = self._accounting.submit(_bury, self._spec, request, answer)
            return InWork(index=request.index, chunks={}, account=account)
        _check_chip(self._spec, answer)
        pixels: dict[str, NDArray[np.int16] | NDArray[np.uint8]] = {"image": answer.image, "fmask": answer.fmask}
        return InWork(
            index=request.index,
            chunks={name: self._encoding.submit(self._encoders[name].encode, pixels[name]) for name in ARRAYS},
            account=self._accounting.submit(_account, self._spec, request, answer),
        )


def _check_chip(spec: StoreSpec, chip: Chip) -> None:
    """What a reader owes."""
    assert chip.image.shape == spec.image_shape, f"image {chip.image.shape}, store {spec.image_shape}"
    assert chip.fmask.shape == spec.fmask_shape, f"fmask {chip.fmask.shape}, store {spec.fmask_shape}"
    assert chip.image.dtype == np.int16, "image must be int16 counts"
    assert chip.fmask.dtype == np.uint8, "fmask must be the raw byte"


def _account(spec: StoreSpec, request: RowRequest, chip: Chip) -> Account:
    valid = valid_pixels(chip.image, chip.fmask, spec.mask_rule)
    return Account(
        request=request,
        valid_pixels=tuple(int(np.count_nonzero(plane)) for plane in valid),
        sums=chip_sums(chip.image, valid),
        tombstone=None,
    )


def _bury(spec: StoreSpec, request: RowRequest, failure: ChipFailure) -> Account:
    """A permanent failure becomes a tombstone; a transient one is raised, for the group to be tried again."""
    error = failure.error
    if error.transient:
        raise error
    stone = Tombstone(
        index=request.index, unit=request.chip.unit, granule=error.granule, band=error.band, cause=error.cause
    )
    return Account(request=request, valid_pixels=(0,) * spec.timesteps, sums=None, tombstone=stone)
