"""s3:// is read like anything else: by whatever keys the machine has, from Amazon or any server that speaks its API."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import replace

import boto3
import pytest
from moto.server import ThreadedMotoServer

from geofm_pipeline.access import environment_keys
from geofm_pipeline.access.faults import Fault, FetchError
from geofm_pipeline.access.services import Bucket, Services
from geofm_pipeline.access.settings import Access
from geofm_pipeline.access.source import ArchiveSource

CONTENT = os.urandom(300_000)
KEY = "HLSL30.020/a b/x+y=z.tif"


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """moto's S3 server on loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(moto: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket with one object; keys and endpoint of this machine are in the environment."""
    keys = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "s3cret/key+", "AWS_REGION": "eu-west-1"}
    for name, value in {**keys, "AWS_ENDPOINT_URL": moto, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    environment_keys._session.cache_clear()
    client = boto3.client("s3", endpoint_url=moto)
    name = f"chips-{uuid.uuid4()}"
    client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    client.put_object(Bucket=name, Key=KEY, Body=CONTENT)
    return name


def test_objects_are_read_by_ranges_and_whole(bucket: str, hasty: Access) -> None:
    """Exact bytes, fewer at the end, none behind it, and the size; keys with blanks and signs are no trouble."""
    source, href = ArchiveSource(replace(hasty, timeout_s=5.0)), f"s3://{bucket}/{KEY}"
    assert source.read(href, 1000, 90_000) == CONTENT[1000:91_000]
    assert source.read(href, 299_990, 100) == CONTENT[-10:]
    assert source.read(href, 400_000, 100) == b""
    assert source.read_all(href) == CONTENT
    assert source.size(href) == len(CONTENT)
    assert source.tally.retry_count == 0


def test_a_missing_object_is_missing(bucket: str, hasty: Access) -> None:
    """404 says something of the file and becomes a recorded state."""
    with pytest.raises(FetchError) as caught:
        ArchiveSource(replace(hasty, timeout_s=5.0)).read(f"s3://{bucket}/nothing.tif", 0, 10)
    assert (caught.value.fault, caught.value.stops_the_run) == (Fault.MISSING, False)


def test_a_bucket_of_services_has_its_own_endpoint_and_may_be_anonymous(
    bucket: str, moto: str, hasty: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any key in the environment a public bucket is still read."""
    boto3.client("s3", endpoint_url=moto).put_object_acl(Bucket=bucket, Key=KEY, ACL="public-read")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    services = Services(buckets={bucket: Bucket(region="eu-west-1", endpoint=moto)})
    source = ArchiveSource(replace(hasty, services=services, timeout_s=5.0))
    assert source.read(f"s3://{bucket}/{KEY}", 5, 7) == CONTENT[5:12]
