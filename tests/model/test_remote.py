"""Stores behind an address: the same samples, few requests, and errors without secrets."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from moto.server import ThreadedMotoServer
from obstore.exceptions import GenericError
from obstore.store import HTTPStore, S3Store
from servers.loopback import Loopback, Reply, Request, serving
from servers.maps import folder_app

from geofm_model import Store, StoreError, files
from geofm_model.addresses import shown, shown_in
from geofm_model.faults import cause_of
from geofm_model.files import ObjectFiles
from geofm_model.loading import Loader, stratum_names

from .conftest import MakeStore
from .streaming import keys, write_dataset

if TYPE_CHECKING:
    from obstore.store import BackoffConfig


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


@pytest.mark.parametrize(
    "address",
    [
        "https://h/x?a=1,2&sig=SECRET",
        "https://h/a,b?sig=SECRET",
        "https://h/a]b?sig=SECRET",
        "https://h/it's/x#SECRET",
        "https://u:SECRET@h/x",
        "https://u:p'SECRET@h/x?k=SECRET",
        "s3://h/x?a=1,http://u:SECRET@h/y?SECRET",
    ],
)
def test_no_address_shows_its_secrets(address: str) -> None:
    """Neither alone nor in a sentence, whatever stands in its path, its password or its query."""
    assert "SECRET" not in shown(address)
    assert "SECRET" not in shown_in(f"there is nothing at '{address}', nor at {address}.")
    assert shown_in(f"there is nothing at {address}; try later").endswith("; try later")


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


def test_a_place_that_has_answered_is_waited_for(
    dataset: Path, no_proxy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that fails twenty times in a row ends no run that has begun; one that never answered is soon told."""
    pause: BackoffConfig = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=20)}
    monkeypatch.setattr(files, "_HASTE", {**files._HASTE, "backoff": pause})
    monkeypatch.setattr(files, "_PATIENCE", {**files._PATIENCE, "backoff": pause})
    app, failures = folder_app(dataset), [20]

    def failing(request: Request) -> Reply:
        failures[0] -= 1
        return Reply(status=503) if failures[0] >= 0 else app(request)

    with serving(failing) as server:
        with pytest.raises(StoreError, match=r"the server fails \(503"):
            Store.open(f"{server.url}/store.zarr")
        assert 0 < failures[0] < 20
        failures[0] = 0
        store = Store.open(f"{server.url}/store.zarr")
        failures[0] = 20
        assert store.sample(int(store.readable[0])).image.any()
        assert failures[0] < 0


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


RUSTS = re.compile(r"Debug source|\bGeneric\b|Error\b|\{|retries|elapsed|secret|password|user:")
"""What obstore says of itself, and what nobody must read."""


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            "ftp://user:password@host/x?sig=secret",
            "ftp://host/x begins with ftp://: what can be read is https, http, s3",
        ),
        ("s3://", "s3:// names no bucket"),
        ("https:///x", "https:///x names no host"),
        ("https://[::1/x", "this is no address (invalid IPv6 address)"),
        (Path("s3://bucket/x"), "s3:/bucket/x is a path: write an address as text, with two slashes, s3://…"),
    ],
)
def test_an_address_that_cannot_be_is_refused(address: str | Path, message: str) -> None:
    """Before anybody is asked; in words, without secrets."""
    with pytest.raises(StoreError) as caught:
        Loader(address, batch_size=4)
    assert message in str(caught.value)
    assert not RUSTS.search(str(caught.value))


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "zarr.json cannot be read: the server asks for a login (401)"),
        (403, "holds no store, or the server refuses it (403; check credentials"),
        (404, "holds no store: give a dataset folder"),
        (418, "zarr.json cannot be read: the server answers 418 I'm a teapot: check the address"),
    ],
)
def test_what_a_server_answers_is_said_in_words(no_proxy: None, status: int, message: str) -> None:
    """What is missing and what to do, never obstore's own text, which has the whole address in it."""
    with serving(lambda request: Reply(status=status, body=b"<html>no</html>")) as server:
        with pytest.raises(StoreError) as caught:
            Loader(f"{server.url.replace('//', '//user:password@')}/out?sig=secret", batch_size=4)
        with pytest.raises((StoreError, FileNotFoundError)) as whole:
            ObjectFiles(f"{server.url.replace('//', '//user:password@')}/out?sig=secret").read("zarr.json")
    assert message in str(caught.value)
    for error in (caught, whole):
        assert not RUSTS.search(str(error.value)), error.value


def test_without_credentials_it_is_said_which_are_read(no_proxy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the names of the environment's variables, public data included."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "half of a pair")
    for name in ("AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT_NAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StoreError, match=r"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY .* or AWS_SKIP_SIGNATURE"):
        Loader("s3://bucket/x", batch_size=4)
    with pytest.raises(StoreError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        Loader("az://box/x", batch_size=4)


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        ('ConnectError("dns error", Custom { error: "failed to lookup" })', "there is no host far.example: check how"),
        ('ConnectError("tcp connect error", Os { kind: ConnectionRefused })', "nothing listens at far.example"),
        ("Connect, TimedOut", "far.example does not answer"),
        ('ConnectError("x", Custom { error: InvalidCertificate(UnknownIssuer) })', "the certificate of far.example is"),
        ("inner: BareRedirect", "the bucket is in another region: set AWS_REGION"),
        ("inner: Os { kind: ConnectionReset }", "the connection breaks off; try later, a run goes on where it was"),
        ("Server returned non-2xx status code: 503 Slow Down: <x>", "the server fails (503 Slow Down); try later"),
        ("something quite new", "GET https://far.example/x - something quite new"),
    ],
)
def test_what_a_network_lacks_is_said_in_words(inside: str, message: str) -> None:
    """By what obstore 0.12 says of each, which waits for seconds before it does."""
    said = f"Generic S3 error: GET https://user:password@far.example/x?sig=secret - {inside}"
    cause = cause_of(GenericError(f"{said}\n\nDebug source:\nGeneric {{ {inside} }}"), "s3://b/x")
    assert message in cause
    assert not RUSTS.search(cause)


def test_https_is_read_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Public buckets need no credentials: an https address is never taken for a service that signs; s3 is."""
    for address in ("https://bucket.s3.amazonaws.com/out", "https://name.blob.core.windows.net/box/out?sig=x"):
        assert isinstance(ObjectFiles(address)._store(), HTTPStore)
    assert isinstance(ObjectFiles("s3://bucket/out")._store(), S3Store)


def test_a_fork_that_cannot_read_says_so(served: Loopback, no_proxy: None) -> None:
    """A process forked after a read from an address would wait for ever for threads that stayed behind."""
    script = f"""
import os, sys, warnings
from geofm_model import Store, StoreError, files
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
