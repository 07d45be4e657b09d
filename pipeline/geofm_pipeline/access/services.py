"""Where the outside services are and how they are called: every address and product fact of them, in one record.

When a service moves, one line changes here; a user need not wait for that: `--services FILE` (YAML) overrides any
field, e.g. for a mirror or a test environment. Nothing here is a secret.
"""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

import yaml

from geofm_pipeline.errors import InputError

Keys = Literal["none", "earthdata", "environment"]


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """How an S3 bucket is reached."""

    region: str
    keys: Keys = "none"
    """`none`: anonymous; `earthdata`: temporary keys; `environment`: what AWS's own variables and files say."""
    endpoint: str = ""
    """`https://host`, path-style; '' for Amazon's own."""


@dataclass(frozen=True, kw_only=True)
class Services:
    """Addresses and facts of all services. Defaults are the live ones, as known on 2026-11-26."""

    # --- catalogues
    geoparquet: str = "s3://nasa-maap-data-store/file-staging/nasa-map/hls-stac-geoparquet-archive/v2"
    """Root of the HLS STAC GeoParquet archive; below it {collection}/year=Y/month=M/{collection}-Y-M.parquet."""
    cmr: str = "https://cmr.earthdata.nasa.gov"
    """CMR; its granules API is at /search/granules.json."""
    cmr_stac: str = "https://cmr.earthdata.nasa.gov/stac/LPCLOUD"
    planetary_computer: str = "https://planetarycomputer.microsoft.com/api/stac/v1"

    # --- login
    earthdata_login: str = "https://urs.earthdata.nasa.gov"
    """NASA Earthdata Login (EDL)."""
    earthdata_hosts: tuple[str, ...] = ("data.lpdaac.earthdatacloud.nasa.gov",)
    """Hosts (host or host:port) that get the EDL bearer token, and no other host ever does."""
    s3_credentials: str = "https://data.lpdaac.earthdatacloud.nasa.gov/s3credentials"
    """Temporary S3 keys of LP DAAC, valid for an hour, in its region only."""
    earthdata_s3: dict[str, str] = field(
        default_factory=lambda: {"https://data.lpdaac.earthdatacloud.nasa.gov/lp-prod-": "s3://lp-prod-"}
    )
    """https prefix → s3 prefix of the same files."""
    instance_metadata: str = "http://169.254.169.254"
    """Where an Amazon machine asks for its region (IMDSv2); '' never asks."""
    sas: str = "https://planetarycomputer.microsoft.com/api/sas/v1/token"
    """Signatures of the Planetary Computer: /{account}/{container}."""
    blob_suffix: str = ".blob.core.windows.net"
    """{account}{blob_suffix}/{container}/… are blobs; those in `signed_accounts` need a signature."""
    signed_accounts: tuple[str, ...] = ("hls2euwest", "cpdataeuwest", "ai4edataeuwest")
    probe: str = (
        "https://data.lpdaac.earthdatacloud.nasa.gov/lp-prod-protected/HLSS30.020/"
        "HLS.S30.T55LCL.2024001T003701.v2.0/HLS.S30.T55LCL.2024001T003701.v2.0.B04.tif"
    )
    """A small file that `login-check` reads sixteen kilobytes of."""

    # --- storage
    buckets: dict[str, Bucket] = field(
        default_factory=lambda: {
            "lp-prod-protected": Bucket(region="us-west-2", keys="earthdata"),
            "lp-prod-public": Bucket(region="us-west-2", keys="earthdata"),
            "nasa-maap-data-store": Bucket(region="us-west-2"),
            "esa-worldcover": Bucket(region="eu-central-1"),
            "io-10m-annual-lulc": Bucket(region="us-west-2"),
        }
    )
    """Known buckets; any other one takes its keys and endpoint from AWS's environment variables."""
    google_storage: str = "https://storage.googleapis.com"
    """gs://bucket/key is read anonymously from {google_storage}/bucket/key."""

    # --- land cover and weather
    worldcover: dict[int, str] = field(
        default_factory=lambda: {
            2020: "s3://esa-worldcover/v100/2020/map/ESA_WorldCover_10m_2020_v100_{cell}_Map.tif",
            2021: "s3://esa-worldcover/v200/2021/map/ESA_WorldCover_10m_2021_v200_{cell}_Map.tif",
        }
    )
    """Year → file by 3° cell, named by its south-west corner, e.g. N45E009."""
    io_lulc: str = "s3://io-10m-annual-lulc/{zone}_{year}.tif"
    """File by grid zone (e.g. 34S) and year."""
    io_lulc_years: tuple[int, ...] = tuple(range(2017, 2025))
    terraclimate: str = "https://cpdataeuwest.blob.core.windows.net/cpdata/terraclimate.zarr"
    arco_era5: str = "gs://gcp-public-data-arco-era5/ar/full_37-1h-0p25deg-chunk-1.zarr-v3"
    era5_land: str = "https://data.earthdatahub.destine.eu/era5/era5-land-daily-utc-v1.zarr"
    era5_land_host: str = "data.earthdatahub.destine.eu"
    """Host that gets the Earth Data Hub token, as the password of HTTP Basic."""
    era5_land_user: str = "edh"


def load_services(path: Path | None) -> Services:
    """The live services, with the fields of a YAML file in place of the defaults.

    Raises
    ------
    InputError
        When the file is missing or no YAML mapping, names a field that there is none of, or gives one a strange value.
    """
    if path is None:
        return Services()
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"--services {path} cannot be read: {' '.join(str(error).split())}") from error
    known = {f.name for f in dataclasses.fields(Services)}
    if not isinstance(found, dict) or not set(found) <= known:
        strange = ", ".join(sorted(set(map(str, found)) - known)) if isinstance(found, dict) else type(found).__name__
        raise InputError(
            f"--services {path} must be a YAML mapping of some of {', '.join(sorted(known))}, got {strange}"
        )
    try:
        values: dict[str, Any] = {name: _typed(name, value) for name, value in found.items()}
        return Services(**values)
    except ValueError as error:
        raise InputError(f"--services {path}: {error}") from error


def _typed(name: str, value: object) -> object:
    """The value of a field, of its default's type inside, too."""
    default = getattr(Services(), name)
    if name == "buckets" and isinstance(value, dict):
        return {**default, **{bucket: _bucket(bucket, facts) for bucket, facts in value.items()}}
    if isinstance(default, tuple) and isinstance(value, list):
        _check_each(name, value, type(default[0]))
        return tuple(value)
    if not isinstance(value, type(default)):
        raise ValueError(f"{name} must be {_TYPES[type(default)]}, got {value!r}")
    if isinstance(value, dict):
        _check_each(name, value, type(next(iter(default))))
        _check_each(name, value.values(), str)
    for template in value.values() if name == "worldcover" and isinstance(value, dict) else [value]:
        _check_template(name, str(template))
    return value


_TYPES = {str: "text", int: "a whole number", tuple: "a list", dict: "a mapping"}
_PLACES = {"worldcover": {"cell"}, "io_lulc": {"zone", "year", "next_year"}}
"""What the braces of an address may name."""


def _check_each(name: str, values: Iterable[object], kind: type) -> None:
    for value in values:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{name} must hold {_TYPES[kind]}, got {value!r}")


def _check_template(name: str, text: str) -> None:
    if name not in _PLACES:
        return
    try:
        named = {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}
    except ValueError:
        named = {"?"}
    if not named or not named <= _PLACES[name]:
        known = ", ".join(f"{{{place}}}" for place in sorted(_PLACES[name]))
        raise ValueError(f"{name} must be an address with {known} in it and no other braces, got {text!r}")


def _bucket(name: object, facts: object) -> Bucket:
    known = {f.name for f in dataclasses.fields(Bucket)}
    right = isinstance(facts, dict) and "region" in facts and set(facts) <= known
    if not right or not all(isinstance(value, str) for value in cast("dict[str, object]", facts).values()):
        raise ValueError(
            f"bucket {name} must have a region (text), and may have keys ({', '.join(get_args(Keys))}) and an endpoint "
            f"(https://host); got {facts!r}"
        )
    bucket = Bucket(**cast("dict[str, Any]", facts))
    if bucket.keys not in get_args(Keys):
        raise ValueError(f"bucket {name} must have keys {', '.join(get_args(Keys))}, got {bucket.keys!r}")
    return bucket


def changed_fields(services: Services) -> list[str]:
    """Names of the fields that differ from the live services."""
    live = Services()
    return [f.name for f in dataclasses.fields(Services) if getattr(services, f.name) != getattr(live, f.name)]
