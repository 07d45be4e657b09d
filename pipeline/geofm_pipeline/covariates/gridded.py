"""NetCDF and Zarr by path or URL through xarray, whichever library wrote them, and the axes of their grids.

Nothing is decoded on opening: calendars of year 1, packed values and fill values are the readers' business.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import urlsplit

import obstore
import xarray as xr
from obstore.store import from_url

from geofm_pipeline.catalogs.items import is_url
from geofm_pipeline.errors import ArchiveError, InputError

_NETCDF = (".nc", ".nc4", ".netcdf", ".cdf", ".h5")
_BUFFER = 1 << 20  # bytes per range request of a remote NetCDF
_AXES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "lat": (("latitude",), ("lat", "latitude", "nav_lat", "y")),
    "lon": (("longitude",), ("lon", "longitude", "long", "nav_lon", "x")),
    "y": (("projection_y_coordinate",), ("y", "northing")),
    "x": (("projection_x_coordinate",), ("x", "easting")),
}
"""Axis → (CF standard names, usual names)."""


def is_gridded(source: str) -> bool:
    """True when a path or URL names a NetCDF or Zarr and not another raster."""
    path = urlsplit(source).path if is_url(source) else source
    plain = path.rstrip("/").lower()
    return plain.endswith((*_NETCDF, ".zarr")) or (not is_url(source) and _is_zarr(Path(source).expanduser()))


def open_gridded(source: str, *, option: str) -> xr.Dataset:
    """Dataset of a NetCDF 3 or 4 or a Zarr 2 or 3, lazily and undecoded; close it after use.

    Raises
    ------
    InputError
        When nothing is there or it is neither format; `option` names the option it came from.
    ArchiveError
        When it is there but cannot be read.
    """
    path = Path(source).expanduser()
    if not is_url(source) and not path.exists():
        raise InputError(f"{option} {source} does not exist: give a NetCDF or Zarr by path or URL")
    try:
        if source.rstrip("/").lower().endswith(".zarr") or (not is_url(source) and _is_zarr(path)):
            return _open_zarr(source)
        return _open_netcdf(_opened(source), source, option)
    except (OSError, ValueError, KeyError, obstore.exceptions.BaseError) as error:
        if isinstance(error, InputError):
            raise
        raise ArchiveError(
            f"{option} {source} cannot be read: {' '.join(str(error).split())[:300]}; fetch the file "
            f"again (a Zarr behind http needs consolidated metadata, because web servers list no folders)"
        ) from error


def axis_name(data: xr.Dataset | xr.DataArray, axis: str) -> str | None:
    """Name of the one-dimensional coordinate that is an axis (lat, lon, y, x): by standard name, then usual name."""
    standard, usual = _AXES[axis]
    lines = [str(name) for name, coordinate in data.coords.items() if coordinate.ndim == 1]
    for name in lines:
        if data.coords[name].attrs.get("standard_name") in standard:
            return name
    return next((name for name in lines if name.lower() in usual), None)


def _is_zarr(path: Path) -> bool:
    return any((path / marker).exists() for marker in ("zarr.json", ".zgroup", ".zmetadata"))


def _open_zarr(source: str) -> xr.Dataset:
    import zarr
    from zarr.abc.store import Store
    from zarr.storage import LocalStore, ObjectStore

    if is_url(source):
        store: Store = ObjectStore(from_url(source, client_options={"allow_http": True}), read_only=True)
    else:
        store = LocalStore(Path(source).expanduser(), read_only=True)
    consolidated = zarr.open_group(store, mode="r").metadata.consolidated_metadata is not None
    return xr.open_dataset(
        store,  # type: ignore[arg-type]  # xarray takes stores here but does not say so
        engine="zarr",
        consolidated=consolidated,
        chunks=None,
        decode_times=False,
        mask_and_scale=False,
        decode_coords=False,
    )


def _opened(source: str) -> BinaryIO:
    remote = cast(BinaryIO, io.BufferedReader(_Remote(source), _BUFFER)) if is_url(source) else None
    return remote if remote is not None else Path(source).expanduser().open("rb")


def _open_netcdf(handle: BinaryIO, source: str, option: str) -> xr.Dataset:
    magic = handle.read(8)
    handle.seek(0)
    if magic[:3] == b"CDF":
        engine = "scipy"
    elif magic == b"\x89HDF\r\n\x1a\n":
        engine = "h5netcdf"
    else:
        handle.close()
        raise InputError(f"{option} {source} is no NetCDF (it begins with {magic!r}): give a NetCDF or Zarr")
    target = handle if is_url(source) else str(Path(source).expanduser())
    if not is_url(source):
        handle.close()
    return xr.open_dataset(target, engine=engine, decode_times=False, mask_and_scale=False, decode_coords=False)


class _Remote(io.RawIOBase):
    """A file behind a URL, read by range requests."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._store = from_url(f"{parts.scheme}://{parts.netloc}", client_options={"allow_http": True})
        self._path = parts.path.lstrip("/")
        self._size = int(obstore.head(self._store, self._path)["size"])
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed has a private buffer type
        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        buffer[:length] = bytes(obstore.get_range(self._store, self._path, start=self._at, length=length))
        self._at += length
        return length
