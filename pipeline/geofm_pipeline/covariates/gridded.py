"""NetCDF and Zarr by path or URL through xarray, whichever library wrote them, and the axes of their grids.

Nothing is decoded on opening: calendars of year 1, packed values and fill values are the readers' business.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import urlsplit

import xarray as xr

from geofm_pipeline.access.faults import FetchError
from geofm_pipeline.access.remote_file import RemoteFile
from geofm_pipeline.access.source import ArchiveSource, ByteSource
from geofm_pipeline.errors import ArchiveError, InputError

if TYPE_CHECKING:
    from zarr.abc.store import Store

_NETCDF = (".nc", ".nc4", ".netcdf", ".cdf", ".h5")
_BUFFER = 1 << 20  # bytes per range request of a remote NetCDF
_AXES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "lat": (("latitude",), ("lat", "latitude", "nav_lat", "y")),
    "lon": (("longitude",), ("lon", "longitude", "long", "nav_lon", "x")),
    "y": (("projection_y_coordinate",), ("y", "northing")),
    "x": (("projection_x_coordinate",), ("x", "easting")),
}
"""Axis → (CF standard names, usual names)."""


UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, zlib.error)
"""What libraries raise for a damaged file or chunk."""


def is_remote(source: str) -> bool:
    """True for http, https, s3 and gs addresses."""
    return re.match(r"(https?|s3|gs)://", source, re.IGNORECASE) is not None


def is_gridded(source: str) -> bool:
    """True when a path or URL names a NetCDF or Zarr and not another raster."""
    if is_remote(source):
        return _names_zarr(source) or urlsplit(source).path.lower().endswith(_NETCDF)
    plain = source.rstrip("/").lower()
    return plain.endswith((*_NETCDF, ".zarr")) or _is_zarr(Path(source).expanduser())


def _names_zarr(url: str) -> bool:
    """Whether an address is that of a Zarr: x.zarr, x.zarr-v3, x.zarr/group."""
    path = urlsplit(url).path.lower()
    return ".zarr" in path and not path.endswith(_NETCDF)


def open_gridded(
    source: str, *, option: str, archive: ByteSource | None = None, asked: str | None = None
) -> xr.Dataset:
    """Dataset of a NetCDF 3 or 4 or a Zarr 2 or 3, lazily and undecoded; close it after use.

    Parameters
    ----------
    option : the option it came from, for messages
    archive : where remote bytes come from, by default a source of its own
    asked : name of the source for messages, by default `source`

    Raises
    ------
    InputError
        When nothing is there or it is neither format.
    ArchiveError
        When it is there but cannot be read.
    FetchError
        When its bytes cannot be had.
    """
    path = Path(source).expanduser()
    if not is_remote(source) and not path.exists():
        raise InputError(f"{option} {source} does not exist: give a NetCDF or Zarr by path or URL")
    try:
        if is_remote(source):
            archive = archive or ArchiveSource()
            if _names_zarr(source):
                return _open_remote_zarr(source, archive)
            return _open_netcdf(_remote_file(source, archive), source, option)
        if source.rstrip("/").lower().endswith(".zarr") or _is_zarr(path):
            from zarr.storage import LocalStore

            return _open_zarr(LocalStore(path, read_only=True))
        return _open_netcdf(path.open("rb"), source, option)
    except UNREADABLE as error:
        if isinstance(error, InputError):
            raise
        raise ArchiveError(unreadable(option, asked or source, error)) from error


def unreadable(option: str, source: str, error: BaseException) -> str:
    """The message for a file that is there but cannot be decoded."""
    words = " ".join(str(error).split())[:300] or type(error).__name__
    return (
        f"{option} {source} cannot be read: {words}; fetch the file again (a Zarr behind an address needs consolidated "
        f"metadata, because web servers list no folders), or go on without it: {option} none"
    )


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


def _open_remote_zarr(source: str, archive: ByteSource) -> xr.Dataset:
    from geofm_pipeline.access.zarr_store import ArchiveStore

    store = ArchiveStore(archive, source)
    try:
        return _open_zarr(store)
    except FileNotFoundError:  # no group: because it was refused, or because there is none
        refused: FetchError | None = store.refused
        if refused is not None:
            raise refused from None
        raise


def _open_zarr(store: Store) -> xr.Dataset:
    import zarr

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


def _remote_file(source: str, archive: ByteSource) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(RemoteFile(archive, source), _BUFFER))


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
    target = handle if is_remote(source) else str(Path(source).expanduser())
    if not is_remote(source):
        handle.close()
    return xr.open_dataset(target, engine=engine, decode_times=False, mask_and_scale=False, decode_coords=False)
