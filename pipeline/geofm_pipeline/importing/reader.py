"""Reads windows of images as a store holds them: counts and mask bytes, from open files that are used again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.chips import Chip, ChipFailure, ChipRequest, ReadStats
from geofm_pipeline.errors import InputError
from geofm_pipeline.hls.bands import FILL
from geofm_pipeline.importing.damage import unreadable
from geofm_pipeline.importing.images import BandFile, Image
from geofm_pipeline.importing.pixels import Conversion, MaskValues, UnfitValueError, fmask_of
from geofm_pipeline.importing.rasters import RasterReadError, Rasters


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What the values of images and masks mean; small and picklable."""

    conversion: Conversion
    mask: MaskValues | None


class ImageReader:
    """Windows of images as image int16 [B, h, w] and fmask uint8 [h, w]; for one thread."""

    def __init__(self, meaning: Meaning) -> None:
        self.rasters = Rasters()
        self._meaning = meaning

    def read(
        self, image: Image, *, row: int, col: int, height: int, width: int
    ) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        """One window, which lies inside the image.

        Raises
        ------
        InputError
            When a value cannot be a count, one of the mask has no meaning, or a file is damaged.
        ArchiveError
            When a file is gone, or its disk fails.
        """
        window = (row, col, height, width)
        counts = np.empty((len(image.bands), height, width), dtype=np.int16)
        for path, places in _by_file(image.bands).items():
            values, present = self._values(path, [image.bands[place].band for place in places], window)
            for at, place in enumerate(places):
                counts[place] = self._counts(image.bands[place], values[at], present[at])
        marks = None
        if image.mask and self._meaning.mask is not None:
            values, present = self._values(image.mask, [1], window)
            try:
                marks = self._meaning.mask.bytes(values[0], present[0])
            except UnfitValueError as fault:
                raise InputError(f"{image.mask} {fault}") from None
        return counts, fmask_of(counts, marks)

    def _values(
        self, path: str, bands: list[int], window: tuple[int, int, int, int]
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Values and what is there; a failed reading is tried again, since network drives have lapses."""
        row, col, height, width = window
        said = ""
        for _ in range(2):
            try:
                return self.rasters.read(path, bands, row=row, col=col, height=height, width=width)
            except RasterReadError as fault:
                said = str(fault)
                self.rasters.forget(path)
        raise unreadable(path, said)  # outside of `except`: GDAL's errors do not travel between processes

    def _counts(self, band: BandFile, values: NDArray[np.generic], present: NDArray[np.bool_]) -> NDArray[np.int16]:
        try:
            return self._meaning.conversion.counts(values, present)
        except UnfitValueError as fault:
            raise InputError(f"{band.path} band {band.band} {fault}") from None


class ImageChipReader:
    """A :class:`~geofm_pipeline.chips.ChipReader` of images: the granules of a request are their names.

    It answers every request with a chip: what cannot be read stops the run, since a local file that was there when
    the plan was made is the user's to put back, and no gap to write into a store.
    """

    def __init__(self, images: Mapping[str, Image], meaning: Meaning) -> None:
        self.stats = ReadStats()
        self._images, self._reader = images, ImageReader(meaning)

    def read(self, requests: Sequence[ChipRequest]) -> Iterator[Chip | ChipFailure]:
        """One chip per request, in order."""
        try:
            for request in requests:
                start = time.monotonic()
                chip = self._chip(request)
                self.stats.seconds += time.monotonic() - start
                yield chip
        finally:
            self._reader.rasters.close()

    def _chip(self, request: ChipRequest) -> Chip:
        size, dates = request.size, len(request.scenes)
        images = [self._images[scene.granule_id] for scene in request.scenes]
        image = np.full((dates, len(images[0].bands), size, size), FILL, dtype=np.int16)
        fmask = np.empty((dates, size, size), dtype=np.uint8)
        opens = self._reader.rasters.opens
        for t, one in enumerate(images):
            image[t], fmask[t] = self._reader.read(
                one, row=request.row_off, col=request.col_off, height=size, width=size
            )
            self.stats.requests += len(_by_file(one.bands)) + bool(one.mask)
            self.stats.bytes_needed += image[t].nbytes
            self.stats.bytes_requested += image[t].nbytes
        self.stats.opens += self._reader.rasters.opens - opens
        return Chip(unit=request.unit, image=image, fmask=fmask)


def _by_file(bands: Sequence[BandFile]) -> dict[str, list[int]]:
    """Positions of the bands by the file they are in."""
    found: dict[str, list[int]] = {}
    for place, band in enumerate(bands):
        found.setdefault(band.path, []).append(place)
    return found
