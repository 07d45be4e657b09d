"""Images: the files of one place on one day, with their grid; what does not fit together is refused here.

*Place*: ground that is seen by images on one grid. Its name comes from the pattern or table; where none says it, all
images on the same grid are one place, named after the first of them. Costs one opened file per band file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from geofm_pipeline.errors import InputError
from geofm_pipeline.hls.bands import SCALE, Sensor
from geofm_pipeline.importing.config import ImportConfig
from geofm_pipeline.importing.damage import unreadable
from geofm_pipeline.importing.days import days_of
from geofm_pipeline.importing.listing import ListedFile, Listing
from geofm_pipeline.importing.pattern import as_date
from geofm_pipeline.importing.pixels import UnfitValueError
from geofm_pipeline.importing.rasters import Grid, Header, RasterReadError, Rasters, read_header
from geofm_pipeline.importing.scaling import scale_for
from geofm_pipeline.importing.words import counted
from geofm_pipeline.progress import Progress
from geofm_pipeline.scenes import SceneRef

_NOWHERE = ((1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
"""Transforms that GDAL gives to a raster without any."""
_MIDDLE = 256
"""Edge of the part that is read for a hint, pixels."""


@dataclass(frozen=True, kw_only=True)
class BandFile:
    """Where one band of an image is."""

    path: str
    band: int
    """Number of the band in its file, from 1."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """All bands of one place on one day; small and picklable."""

    name: str
    """Name of its file, or of that of its first band, below the folder of the listing; unique."""
    place: str
    day: int
    """Days since 1970-01-01."""
    sensor: Sensor
    stratum: int
    bands: tuple[BandFile, ...]
    """In order of the store's bands."""
    mask: str
    """Path of its cloud mask, '' without one."""
    grid: Grid
    bytes: int
    """Size of all its files."""
    changed: int
    """When one of them was last changed, nanoseconds since 1970."""

    @property
    def scene(self) -> SceneRef:
        """What the store's writer calls it."""
        paths = tuple(band.path for band in self.bands)
        return SceneRef(granule_id=self.name, sensor=self.sensor, date=self.day, bands=paths, fmask=self.mask)


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """A listed file with its header, place and day."""

    file: ListedFile
    header: Header
    place: str
    day: int


def open_images(listing: Listing, config: ImportConfig, progress: Progress) -> list[Image]:
    """The images of a listing in order of (place, day).

    Raises
    ------
    InputError
        When files lack a date, bands, a reference system, do not fit each other, or are damaged.
    ArchiveError
        When a file is gone, or its disk fails.
    """
    files = _of_wanted_bands(listing, config)
    headers = [_header(file.path) for file in progress.count(files, total=len(files), label="images", unit="files")]
    for file, header in zip(files, headers, strict=True):
        _check_header(file, header, config)
    days = days_of(files, headers, config)
    places = _places(files, headers)
    opened = [
        _Opened(file=file, header=header, place=place, day=day)
        for file, header, place, day in zip(files, headers, places, days, strict=True)
    ]
    groups: dict[tuple[str, int], list[_Opened]] = {}
    for part in opened:
        groups.setdefault((part.place, part.day), []).append(part)
    images = [_image(parts, config) for _, parts in sorted(groups.items())]
    _check_places(images)
    return images


def declared_otherwise(image: Image, config: ImportConfig) -> str | None:
    """A sentence where a file declares another meaning of its values than the options give, else None.

    Declared is reflectance = value × scale + offset, so counts = (value × scale + offset) / 0.0001.
    """
    first = image.bands[0]
    header = _header(first.path)
    scale, offset = header.scales[first.band - 1], header.offsets[first.band - 1]
    taken = (1.0 if config.scale is None else config.scale, config.offset)
    if (scale, offset) == (1.0, 0.0) or all(
        abs(mine - declared / SCALE) <= 1e-6 * max(1.0, abs(mine))
        for mine, declared in zip(taken, (scale, offset), strict=True)
    ):
        return None
    return (
        f"{image.name} declares scale {scale:g} and offset {offset:g}, which is --scale {scale / SCALE:g} "
        f"--offset {offset / SCALE:g}; the options given make counts as value × {taken[0]:g} + {taken[1]:g}"
    )


def _of_wanted_bands(listing: Listing, config: ImportConfig) -> list[ListedFile]:
    """The files without those of bands that were not asked for."""
    wanted = {band.where for band in config.choices}
    files = [file for file in listing.files if file.band is None or file.band in wanted]
    if not files:
        there = sorted({file.band for file in listing.files if file.band is not None})
        raise InputError(
            f"no file is of one of the bands {', '.join(sorted(wanted))}; there are {', '.join(there[:20])}: --bands "
            "names the bands and where they are, e.g. red=3,nir=4"
        )
    return files


def _header(path: str) -> Header:
    try:
        return read_header(path)
    except RasterReadError as fault:
        raise unreadable(path, str(fault)) from fault


def _check_header(file: ListedFile, header: Header, config: ImportConfig) -> None:
    if not header.grid.crs:
        raise InputError(
            f"{file.path} has no reference system, so nobody knows where it lies: give it one, e.g. by "
            "`gdal_edit.py -a_srs EPSG:32632`"
        )
    if header.grid.transform in _NOWHERE:
        raise InputError(
            f"{file.path} does not say where its corners lie: give it its upper left and lower right corner, e.g. by "
            "`gdal_edit.py -a_ullr`, or warp it by its control points (gdalwarp)"
        )
    for dtype in header.dtypes:
        try:
            config.conversion.check_type(dtype)
        except UnfitValueError as fault:
            hint = _scale_hint(file.path, header) if np.dtype(dtype).kind == "f" else ""
            raise InputError(f"{file.path} {f'has values of type {dtype}, {hint}' if hint else fault}") from None


def _scale_hint(path: str, header: Header) -> str:
    """What decimal values seem to be, by what the file declares, else by those in its middle; '' if neither says."""
    scale, offset = header.scales[0], header.offsets[0]
    if (scale, offset) != (1.0, 0.0):
        return f"and declares how they become reflectance: give --scale {scale / SCALE:g} --offset {offset / SCALE:g}"
    height, width = (min(_MIDDLE, size) for size in (header.grid.height, header.grid.width))
    row, col = (header.grid.height - height) // 2, (header.grid.width - width) // 2
    rasters = Rasters(most=1)
    try:
        bands = range(1, len(header.dtypes) + 1)
        values, present = rasters.read(path, bands, row=row, col=col, height=height, width=width)
    except RasterReadError:  # damaged, too; the scale is wanted in any case
        return ""
    finally:
        rasters.close()
    hint = scale_for(values[present])
    return f"in its middle {hint}" if hint else ""


def _places(files: Sequence[ListedFile], headers: Sequence[Header]) -> list[str]:
    """Place of each file: as it is named, else that of the first file on its grid."""
    by_size: dict[tuple[int, int], list[tuple[Grid, str]]] = {}
    places = []
    for file, header in zip(files, headers, strict=True):
        if file.place is not None:
            places.append(file.place)
            continue
        known = by_size.setdefault((header.grid.height, header.grid.width), [])
        place = next((name for grid, name in known if grid.same(header.grid)), None)
        if place is None:
            place = PurePosixPath(file.name).with_suffix("").as_posix()
            known.append((header.grid, place))
        places.append(place)
    return places


def _image(parts: Sequence[_Opened], config: ImportConfig) -> Image:
    """One image of all files of a place and day."""
    several = any(part.file.band is not None for part in parts)
    bands = _of_band_files(parts, config) if several else _of_one_file(parts, config)
    first = next(part for part in parts if part.file.path == bands[0].path)
    grid, path = first.header.grid, first.file.path
    for part in parts:
        if not part.header.grid.same(grid):
            raise InputError(_other_grid(part.file.path, part.header.grid, path, grid, "one image"))
    mask = _mask([part.file for part in parts])
    if mask:
        header = _header(mask)
        if not header.grid.same(grid):
            raise InputError(
                f"{mask} has {header.grid.text()}, its image {path} has {grid.text()}: a mask must lie on the grid of "
                "its image. Warp it there without mixing its values (gdalwarp -r near -t_srs … -te … -tr …)"
            )
        if np.dtype(header.dtypes[0]).kind not in "iu":
            raise InputError(f"{mask} has values of type {header.dtypes[0]}: a mask has whole numbers")
    return Image(
        name=first.file.name,
        place=first.place,
        day=first.day,
        sensor=first.file.sensor,
        stratum=first.file.stratum,
        bands=bands,
        mask=mask,
        grid=grid,
        bytes=sum(part.file.bytes for part in parts),
        changed=max(part.file.changed for part in parts),
    )


def _mask(files: Sequence[ListedFile]) -> str:
    """The one mask that the files of an image name, '' where none does."""
    found = sorted({file.mask for file in files if file.mask})
    if len(found) > 1:
        raise InputError(f"{found[0]} and {found[1]} are masks of one image ({files[0].name}): it has one")
    return found[0] if found else ""


def _of_one_file(parts: Sequence[_Opened], config: ImportConfig) -> tuple[BandFile, ...]:
    """Bands of an image whose file holds all of them."""
    if len(parts) > 1:
        raise InputError(
            f"{parts[0].file.path} and {parts[1].file.path} are both of the place {parts[0].place} on "
            f"{as_date(parts[0].day)}: if they are bands of one image, put {{band}} into the pattern or a column band "
            "into the table; else give them places of their own, or leave one out"
        )
    path, count, numbers = parts[0].file.path, len(parts[0].header.dtypes), config.band_numbers
    if numbers is None and count != len(config.choices):
        usual = " by default" if config.bands == ImportConfig.bands else ""
        raise InputError(
            f"{path} has {counted(count, 'band')}, --bands names {len(config.choices)}{usual} ({config.bands}): name "
            "all of a file's bands in order, or say which they are, e.g. --bands red=3,nir=4"
        )
    if numbers is not None and max(numbers) > count:
        raise InputError(f"{path} has {counted(count, 'band')}, --bands {config.bands} asks for band {max(numbers)}")
    return tuple(BandFile(path=path, band=number) for number in numbers or range(1, count + 1))


def _of_band_files(parts: Sequence[_Opened], config: ImportConfig) -> tuple[BandFile, ...]:
    """Bands of an image that has a file for each."""
    known: dict[str, ListedFile] = {}
    for part in parts:
        label = part.file.band
        if label is None:
            raise InputError(
                f"{part.file.path} has no band, other files of {part.place} on {as_date(part.day)} have one"
            )
        before = known.setdefault(label, part.file)
        if before is not part.file:
            raise InputError(
                f"{before.path} and {part.file.path} are both band {label!r} of the place {part.place} on "
                f"{as_date(part.day)}: make the pattern narrower, give them places of their own, or leave one out"
            )
        if len(part.header.dtypes) != 1:
            raise InputError(
                f"{part.file.path} is band {label!r} and has {len(part.header.dtypes)} bands: it needs one"
            )
    missing = [band for band in config.choices if band.where not in known]
    if missing:
        raise InputError(
            f"{parts[0].place} on {as_date(parts[0].day)} has no file for the band {missing[0].where!r}; it has "
            f"{', '.join(sorted(known))} (first file {parts[0].file.path}): --bands names the bands and where they "
            "are, e.g. red=3,nir=4"
        )
    return tuple(BandFile(path=known[band.where].path, band=1) for band in config.choices)


def _check_places(images: Iterable[Image]) -> None:
    """All images of a place lie on one grid and in one stratum."""
    first: dict[str, Image] = {}
    for image in images:
        known = first.setdefault(image.place, image)
        if not image.grid.same(known.grid):
            raise InputError(
                _other_grid(image.bands[0].path, image.grid, known.bands[0].path, known.grid, f"place {image.place}")
            )
        if image.stratum != known.stratum:
            raise InputError(
                f"{image.name} has stratum {image.stratum}, {known.name} of the same place has {known.stratum}: a "
                "place lies in one"
            )


def _other_grid(path: str, grid: Grid, known: str, of_known: Grid, what: str) -> str:
    return (
        f"{path} has {grid.text()}, {known} has {of_known.text()}: all pixels of {what} must lie on one grid. Warp one "
        "onto the other (gdalwarp -t_srs … -te … -tr …), or give them places of their own"
    )


def by_place(images: Iterable[Image]) -> Mapping[str, tuple[Image, ...]]:
    """Images of each place, in order of day."""
    found: dict[str, tuple[Image, ...]] = {}
    for image in images:
        found[image.place] = (*found.get(image.place, ()), image)
    return found
