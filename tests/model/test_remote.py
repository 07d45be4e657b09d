"""Stores behind an address: the same samples, few requests, and errors without secrets."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from moto.server import ThreadedMotoServer
from obstore.store import HTTPStore, S3Store
from servers.loopback import Loopback, Reply, Request, serving
from servers.maps import folder_app

from geofm_model import Store, StoreError
from geofm_model.files import ObjectFiles
from geofm_model.loading import Loader, stratum_names

from .conftest import MakeStore
from .streaming import keys, write_dataset


@pytest.fixture
def dataset(store: Path, make_store: MakeStore, tmp_path: Path) -> Path:
    """A folder with two waves and samples.parquet."""
    return write_dataset(tmp_path / "out", [store, make_store(seed=5)])


@pytest.fixture
def served(dataset: Path) -> Iterator[Loopback]:
    """The dataset on a web server with latency."""
    with serving(folder_app(dataset), latency_s=0.005) as server:
        yield server


def test_over_a_network_the_same_batches_by_one_request_each(dataset: Path, served: Loopback, no_proxy: None) -> None:
    """Samples of a store behind an address are those of the folder; an image costs a request, the masks of a shard one
    for all."""
    local, remote = (Loader(place, batch_size=6, epochs=1, seed=1) for place in (dataset, served.url))
    opened = len(served.log)
    for one, other in zip(local, remote, strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.fmask, other.fmask)
    asked = [request.path for request in served.log[opened:]]
    shards = {(int(store), int(row) // 4) for store, row in zip(local.members.store, local.members.row, strict=True)}
    assert sum("/image/" in path for path in asked) == len(local.members)
    assert sum("/fmask/" in path for path in asked) == len(shards)
    assert len(asked) == len(local.members) + len(shards)


def test_a_query_goes_to_every_file_and_into_no_message(dataset: Path, no_proxy: None) -> None:
    """A signed address of a dataset reads all its waves; what fails is named without the signature or a password."""
    files = folder_app(dataset)

    def app(request: Request) -> Reply:
        return files(request) if request.query.get("sig") == "secret" else Reply(status=403)

    with serving(app) as server:
        loader = Loader(f"{server.url}?sig=secret", batch_size=4, epochs=1)
        assert len(keys(list(loader))) == len(loader.members)
        assert set(loader.members.store.tolist()) == {0, 1}
        host = server.url.removeprefix("http://")
        with pytest.raises(StoreError) as caught:
            Loader(f"http://user:password@{host}?sig=other-secret", batch_size=4)
    assert host in str(caught.value)
    assert not any(word in str(caught.value) for word in ("secret", "password", "user:"))


def test_a_remote_store_travels(served: Loopback, no_proxy: None) -> None:
    """To a spawned process: by pickle, and reads there."""
    store = pickle.loads(pickle.dumps(Store.open(f"{served.url}/store.zarr")))
    assert store.sample(int(store.readable[0])).image.any()


def test_a_network_that_fails_is_an_error_without_secrets(
    dataset: Path, served: Loopback, no_proxy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard that is away is a StoreError that names it."""
    loader = Loader(served.url, batch_size=4, epochs=1)
    for shard in (dataset / "store.zarr" / "image").glob("c.*"):
        shard.unlink()
    with pytest.raises(StoreError, match=r"image/c\.\d.* is missing"):
        list(loader)


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is reached as it is."""
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_of_a_large_table_only_the_columns_needed_are_read(dataset: Path, served: Loopback, no_proxy: None) -> None:
    """samples.parquet of millions of samples, with footprints and granule names, is no download at each start."""
    file = dataset / "samples.parquet"
    table = pq.read_table(file)
    noise = np.random.default_rng(1).bytes(100_000)
    pq.write_table(table.append_column("geometry", pa.array([noise] * len(table))), file, use_dictionary=False)
    assert file.stat().st_size > 3e6
    loader = Loader(served.url, batch_size=4, weighting="design")
    asked = [request for request in served.log if request.path == "/samples.parquet"]
    assert all(request.span for request in asked)
    assert sum(stop - first for first, stop in (request.span for request in asked if request.span)) < 100_000
    assert loader.members.digest == Loader(dataset, batch_size=4, weighting="design").members.digest
    assert stratum_names(served.url) == {}


def test_a_bucket_streams_as_the_folder_does(dataset: Path, no_proxy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 with keys from the environment: waves, weights, samples and their order are the same, or it is an error."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        keys_of = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "word", "AWS_REGION": "us-east-1"}
        for name, value in {**keys_of, "AWS_ENDPOINT": f"http://{host}:{port}", "AWS_ALLOW_HTTP": "true"}.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
        client.create_bucket(Bucket="bucket")
        for path in dataset.rglob("*"):
            if path.is_file():
                client.upload_file(str(path), "bucket", f"out/{path.relative_to(dataset)}")
        here, there = (
            Loader(place, batch_size=4, epochs=1, weighting="design") for place in (dataset, "s3://bucket/out")
        )
        for one, two in zip(here, there, strict=True):
            assert keys([one]) == keys([two])
            assert torch.equal(one.image, two.image)
            assert torch.equal(one.weight, two.weight)
        with pytest.raises(StoreError):
            Store.open("s3://bucket/nothing")
    finally:
        server.stop()


def test_https_is_read_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Public buckets need no credentials: an https address is never taken for a service that signs; s3 is."""
    for address in ("https://bucket.s3.amazonaws.com/out", "https://name.blob.core.windows.net/box/out?sig=x"):
        assert isinstance(ObjectFiles(address)._store(), HTTPStore)
    assert isinstance(ObjectFiles("s3://bucket/out")._store(), S3Store)


def test_a_fork_that_cannot_read_says_so(served: Loopback, no_proxy: None) -> None:
    """A process forked after a read from an address would wait for ever for threads that stayed behind."""
    script = f"""
import os, sys, warnings
from geofm_model import Store, StoreError
warnings.simplefilter("ignore")
store = Store.open("{served.url}/store.zarr")
child = os.fork()
if child == 0:
    for read in (lambda: store.sample(int(store.readable[0])), lambda: Store.open("{served.url}/store.zarr")):
        try:
            read()
        except StoreError as error:
            if "spawn or forkserver" in str(error):
                continue
        os._exit(1)
    os._exit(7)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 7, done.stderr
