"""Addresses of services can be corrected without a release, and a slip is named."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from geofm_pipeline.access.routes import bucket_address, google_address
from geofm_pipeline.access.services import Bucket, Services, changed_fields, load_services
from geofm_pipeline.access.settings import Access
from geofm_pipeline.access.transport import needs_earthdata
from geofm_pipeline.errors import InputError


def _file(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "services.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    """Every field of the record can stand in the file; buckets are added to those known."""
    found = load_services(
        _file(
            tmp_path,
            {
                "cmr": "https://cmr.uat.earthdata.nasa.gov",
                "earthdata_hosts": ["a.example", "b.example:8443"],
                "buckets": {"mine": {"region": "eu-west-1", "endpoint": "http://minio:9000"}},
                "worldcover": {2021: "https://mirror.example/{cell}.tif"},
            },
        )
    )
    assert found.cmr == "https://cmr.uat.earthdata.nasa.gov"
    assert found.earthdata_hosts == ("a.example", "b.example:8443")
    assert found.buckets["mine"] == Bucket(region="eu-west-1", endpoint="http://minio:9000")
    assert found.buckets["esa-worldcover"] == Services().buckets["esa-worldcover"]
    assert sorted(changed_fields(found)) == ["buckets", "cmr", "earthdata_hosts", "worldcover"]
    assert changed_fields(load_services(None)) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"cmrr": "x"}, "got cmrr"),
        ([1, 2], "got list"),
        ("a: [", "cannot be read"),
        ({"cmr": 5}, "cmr must be text, got 5"),
        ({"buckets": {"b": {"zone": "x"}}}, "bucket b must have a region"),
        ({"buckets": {"b": {"region": 5}}}, "bucket b must have a region"),
        (
            {"buckets": {"b": {"region": "x", "keys": "anonymous"}}},
            "must have keys none, earthdata, environment",
        ),
        ({"earthdata_hosts": [1, 2]}, "earthdata_hosts must hold text, got 1"),
        ({"io_lulc_years": ["a"]}, "io_lulc_years must hold a whole number, got 'a'"),
        ({"worldcover": {2021: 5}}, "worldcover must hold text, got 5"),
        ({"worldcover": {"2021": "s3://b/{cell}.tif"}}, "worldcover must hold a whole number, got '2021'"),
        ({"worldcover": {2021: "s3://b/{tile}.tif"}}, "worldcover must be an address with {cell} in it"),
        ({"io_lulc": "s3://b/x.tif"}, "io_lulc must be an address with"),
        ({"worldcover": {2021: "s3://b/{cell.tif"}}, "worldcover must be an address with {cell} in it"),
    ],
)
def test_a_slip_is_named(tmp_path: Path, content: object, message: str) -> None:
    """An unknown field, a wrong type, no YAML: the message names the file and what is wrong."""
    with pytest.raises(InputError, match=re.escape(message)):
        load_services(_file(tmp_path, content))
    with pytest.raises(InputError, match="cannot be read"):
        load_services(tmp_path / "absent.yaml")


def test_defaults_hold_no_secret_and_are_https_or_object_stores() -> None:
    """Nobody's token goes over plain http by default; only Amazon's own machine address is http."""
    services = Services()
    texts = [
        str(value) for field in dataclasses.fields(services) if isinstance(value := getattr(services, field.name), str)
    ]
    assert [text for text in texts if text.startswith("http://")] == [services.instance_metadata]


@pytest.mark.parametrize(
    ("name", "bucket", "url"),
    [
        ("b", Bucket(region="us-west-2"), "https://b.s3.us-west-2.amazonaws.com/a%20b/c.tif"),
        ("b.c", Bucket(region="us-west-2"), "https://s3.us-west-2.amazonaws.com/b.c/a%20b/c.tif"),
        ("b", Bucket(region="x", endpoint="http://127.0.0.1:9000/"), "http://127.0.0.1:9000/b/a%20b/c.tif"),
    ],
)
def test_buckets_have_addresses(name: str, bucket: Bucket, url: str) -> None:
    """Amazon's by host, with a dot or an endpoint of one's own by path."""
    assert bucket_address(name, "a b/c.tif", bucket) == url
    assert google_address(Services(), "gs://g/a b.tif") == "https://storage.googleapis.com/g/a%20b.tif"


def test_which_files_need_an_account() -> None:
    """NASA's protected ones by either scheme; nobody else's."""
    access = Access()
    assert needs_earthdata(access, "https://data.lpdaac.earthdatacloud.nasa.gov/lp-prod-protected/{id}/{id}.{band}.tif")
    assert needs_earthdata(access, "s3://lp-prod-protected/HLSL30.020/{id}/{id}.{band}.tif")
    assert not needs_earthdata(access, "https://hls2euwest.blob.core.windows.net/hls2/{id}.tif")
    assert not needs_earthdata(access, "s3://esa-worldcover/x.tif")
    assert not needs_earthdata(access, "/data/{id}.tif")
