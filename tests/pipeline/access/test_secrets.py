"""No secret is left anywhere: files, messages, logs, what travels between processes, what an error says.

Secrets are planted (tokens, passwords, S3 keys, signatures of addresses and of blobs, keys of other services), real
jobs are run against imitations of the services, and everything that they leave is searched.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
import os
import pickle
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote, quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from nasa_fixtures import PROTECTED
from servers.earthdata import BUCKET, Nasa, nasa, nasa_by_name
from servers.loopback import Loopback, Reply, Request, json_reply, ranged, serving
from servers.maps import folder_app
from servers.s3 import xml_error

from geofm_pipeline import cli
from geofm_pipeline.access.faults import FetchError
from geofm_pipeline.access.services import Services
from geofm_pipeline.access.settings import Access
from geofm_pipeline.access.source import ArchiveSource
from geofm_pipeline.access.transport import transport
from geofm_pipeline.simulator import Archive, simulate

PASSWORD = "pass word/1815+&"
PLANTED = {"AWS_SECRET_ACCESS_KEY": "aws/Secret+Key0123456789", "EARTHDATAHUB_TOKEN": "edh-token-0123456789"}


@dataclass(eq=False)
class Secrets:
    """What must not be found, and where it was."""

    nasa: Nasa
    others: list[str] = field(default_factory=lambda: [PASSWORD, *PLANTED.values()])

    def found_in(self, data: bytes) -> list[str]:
        """The beginnings of the secrets that stand in some bytes, in any usual form."""
        return [secret[:12] for secret in {*self.others, *self.nasa.given} if any(f in data for f in _forms(secret))]


def _forms(secret: str) -> set[bytes]:
    pair = base64.b64encode(f"ada:{secret}".encode()).decode().rstrip("=")
    tail = secret.rpartition(".")[2]  # a token's own signature gives it away when it is cut
    texts = {
        secret,
        tail,
        pair,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        base64.b64encode(secret.encode()).decode(),
    }
    return {text.encode() for text in texts}


def leaks(folder: Path, secrets: Secrets) -> list[str]:
    """Files below a folder that hold a secret; tables are searched as text, since theirs is compressed."""
    found = []
    for path in (path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes() + str(path).encode()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            data += repr(table.schema.metadata).encode() + repr(table.to_pylist()).encode()
        elif path.suffix in (".arrow", ".feather"):
            data += repr(pa.ipc.open_file(path).read_all().to_pylist()).encode()
        found += [f"{path.relative_to(folder)}: {secret}" for secret in secrets.found_in(data)]
    return found


# --- the servers and the archive behind them


@dataclass(eq=False)
class Blobs:
    """The Planetary Computer's signing service and its blobs, which answer to signed requests only."""

    folder: Path
    given: list[str]
    server: Loopback | None = None

    def __call__(self, request: Request) -> Reply:
        if request.path.startswith("/token/"):
            until = (datetime.now(UTC) + timedelta(minutes=45)).strftime("%Y-%m-%dT%H:%M:%SZ")
            signature = f"sasSecret{len(self.given):04d}/+="
            self.given.append(signature)
            query = f"se={quote(until)}&sp=rl&sr=c&sig={quote(signature, safe='')}"
            return json_reply({"msft:expiry": until, "token": query})
        if request.query.get("sig") not in self.given:
            return xml_error("PublicAccessNotPermitted", "Public access is not permitted on this storage account.", 409)
        return ranged(request, Reply(body=(self.folder / BUCKET / request.path.partition("/hls2/")[2]).read_bytes()))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """One tile, six passes over one block."""
    out = tmp_path_factory.mktemp("secrets") / "archive"
    return simulate(out, tiles=["32TNR"], years=[2022], seed=3, extent=(0, 1280, 256, 256), per_year=8)


@pytest.fixture
def objects(archive: Archive, tmp_path: Path) -> Path:
    """The archive as the objects of a bucket."""
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / BUCKET).symlink_to(archive.root)
    return tmp_path / "objects"


@pytest.fixture
def secrets(logged_out: pytest.MonkeyPatch, objects: Path) -> Iterator[Secrets]:
    """NASA's servers by address, and secrets of other services in the environment."""
    for name, value in PLANTED.items():
        logged_out.setenv(name, value)
    with nasa(objects) as state:
        logged_out.setenv("EARTHDATA_TOKEN", state.new_token())
        yield Secrets(state)


@pytest.fixture
def small(logged_out: pytest.MonkeyPatch, earth: Nasa) -> Secrets:
    """The same servers with one small file."""
    for name, value in PLANTED.items():
        logged_out.setenv(name, value)
    logged_out.setenv("EARTHDATA_TOKEN", earth.new_token())
    return Secrets(earth)


@dataclass(eq=False)
class Run:
    """One command line and what it left."""

    words: list[str]
    out: Path
    capfd: pytest.CaptureFixture[str]
    caplog: pytest.LogCaptureFixture

    def __call__(self, secrets: Secrets) -> int:
        """Run it; fail if any secret is found afterwards."""
        self.caplog.set_level(logging.DEBUG)
        code = cli.run(self.words)
        out, err = self.capfd.readouterr()
        assert secrets.found_in(out.encode()) == []
        assert secrets.found_in(err.encode()) == [], err
        assert secrets.found_in(self.caplog.text.encode()) == []
        assert leaks(self.out, secrets) == []
        self.said = err
        return code


RunMaker = Callable[..., Run]


@pytest.fixture
def run(
    archive: Archive, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> RunMaker:
    """Makes the command line of a small job on protected files."""

    def make(services: Services, *, workers: int = 0, route: str = "https", items: str = "", **options: str) -> Run:
        catalog = tmp_path / "items.json"
        host = f"{services.probe.partition(f'/{BUCKET}/')[0]}/{BUCKET}"
        catalog.write_text(items or archive.items.read_text().replace('"./HLS', f'"{host}/HLS'))
        file = tmp_path / "services.yaml"
        file.write_text(yaml.safe_dump(_changed(services)))
        out = tmp_path / "out"
        words = {
            "--region": "32TNR", "--years": "2022", "--catalog": str(catalog), "--land-cover": str(archive.land_cover),
            "--weather": str(archive.weather), "--chip-size": "64", "--timesteps": "2", "--samples": "8",
            "--workers": str(workers), "--out": str(out), "--services": str(file), "--access": route,
        }  # fmt: skip
        words |= {f"--{name.replace('_', '-')}": value for name, value in options.items()}
        return Run([word for pair in words.items() for word in pair], out, capfd, caplog)

    return make


def _changed(services: Services) -> dict[str, object]:
    """The fields that differ from the live services', as YAML takes them."""
    live, ours = dataclasses.asdict(Services()), dataclasses.asdict(services)
    return {n: list(v) if isinstance(v, tuple) else v for n, v in ours.items() if v != live[n]}


# --- jobs


def test_the_search_finds_what_is_planted(tmp_path: Path) -> None:
    """In plain text, quoted, as HTTP Basic, in a compressed table, in a file's name: the other tests can fail."""
    secrets = Secrets(Nasa(tmp_path))
    token = secrets.nasa.new_token()
    (tmp_path / "a.json").write_text(f"Authorization: Bearer {token}")
    (tmp_path / "b.txt").write_text(f"?password={quote_plus(PASSWORD)}")
    (tmp_path / "c.log").write_text("Basic " + base64.b64encode(f"ada:{PASSWORD}".encode()).decode())
    pq.write_table(pa.table({"href": [f"https://host/a.tif?token={token}"] * 1000}), tmp_path / "d.parquet")
    (tmp_path / PLANTED["EARTHDATAHUB_TOKEN"]).touch()
    assert {leak.partition(":")[0] for leak in leaks(tmp_path, secrets)} == {path.name for path in tmp_path.iterdir()}


def test_a_run_by_token_and_by_signed_blobs_leaves_no_secret(
    secrets: Secrets, run: RunMaker, archive: Archive, objects: Path
) -> None:
    """Half the granules are NASA's, half the Planetary Computer's; the run succeeds, and every file is searched."""
    blobs = Blobs(objects, [])
    with serving(blobs) as server:
        services = dataclasses.replace(
            secrets.nasa.services(), sas=f"{server.url}/token", blob_suffix=f".localhost:{server.port}"
        )
        text = archive.items.read_text().replace('"./HLS.L30', f'"{secrets.nasa.urls["distribution"]}/{BUCKET}/HLS.L30')
        text = text.replace('"./HLS.S30', f'"http://hls2euwest.localhost:{server.port}/hls2/HLS.S30')
        job = run(services, items=text)
        secrets.others += blobs.given
        assert job(secrets) == 0
        assert secrets.nasa.counts["reads"] > 0
        assert blobs.given
    assert leaks(job.out, Secrets(secrets.nasa, blobs.given)) == []


def test_secrets_in_the_addresses_of_a_command_are_left_nowhere(
    secrets: Secrets, run: RunMaker, archive: Archive
) -> None:
    """Catalogue, land cover and weather by addresses with a user, a password and a token: neither the run, nor the
    same command again, nor others that are refused or fail, keep or show them. Signed anew, it is the same command."""
    secrets.others += ["passAddress0123", "tokenAddress0123", "tokenRenewed0123"]

    def address(path: Path, token: str = "tokenAddress0123") -> str:
        host = server.url.removeprefix("http://")
        return f"http://ada:passAddress0123@{host}/{path.relative_to(archive.root)}?sig={token}"

    with serving(folder_app(archive.root)) as server:
        sources = {"catalog": archive.items, "land_cover": archive.land_cover, "weather": archive.weather}
        services = secrets.nasa.services()
        job = run(services, **{name: address(path) for name, path in sources.items()})
        assert job(secrets) == 0
        assert any(request.query.get("sig") == "tokenAddress0123" for request in server.log)  # it did reach the server
        assert "everything is written already" in (job(secrets), job.said)[1]
        renewed = run(services, **{name: address(path, "tokenRenewed0123") for name, path in sources.items()})
        assert renewed(secrets) == 0
        refused = run(services, samples="9", **{name: address(path) for name, path in sources.items()})
        assert refused(secrets) == 6
        for name in sources:
            out = job.out.parent / name
            failed = run(services, out=str(out), **{name: address(archive.root / "absent.tif")})
            assert failed(secrets) in (2, 4)
            assert leaks(out, secrets) == []


@pytest.mark.heavy
def test_a_token_that_expires_in_the_middle_stops_no_cluster(
    logged_out: pytest.MonkeyPatch, objects: Path, run: RunMaker
) -> None:
    """User and password, two workers, every token revoked while pixels are read: the run ends well, with new logins."""
    for name, value in {"EARTHDATA_USERNAME": "ada", "EARTHDATA_PASSWORD": PASSWORD}.items():
        logged_out.setenv(name, value)
    with nasa_by_name(objects, logged_out.setenv) as state:
        state.users["ada"], state.address_s = PASSWORD, 30  # so that every read asks the distribution
        state.before = after(state, 60, "distribution", state.expire_tokens)
        job = run(state.services(), workers=2)
        assert job(Secrets(state)) == 0
        assert state.counts["logins"] >= 2
        stages = json.loads((job.out / "card.json").read_text())["access"]["stages"]
        assert sum(stage["retries"].get("login renewed", 0) for stage in stages.values()) >= 1


@pytest.mark.heavy
def test_one_worker_tries_a_password_for_all(
    logged_out: pytest.MonkeyPatch, objects: Path, run: RunMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many wrong passwords at once would lock the account: where it was right for the driving process and is wrong for
    workers, one of three tries it; nobody is prompted for another one."""
    for name, value in {"EARTHDATA_USERNAME": "ada", "EARTHDATA_PASSWORD": PASSWORD}.items():
        logged_out.setenv(name, value)

    def prompted(*words: object) -> str:
        raise AssertionError(f"somebody was asked for {words}")

    monkeypatch.setattr("builtins.input", prompted)
    monkeypatch.setattr("getpass.getpass", prompted)
    with nasa_by_name(objects, logged_out.setenv) as state:
        state.users["ada"] = PASSWORD

        def change() -> None:
            state.users["ada"] = "another one"
            state.expire_tokens()

        state.before = after(state, 3, "login", change)  # earthaccess asks twice for each login
        job = run(state.services(), workers=3)
        assert job(Secrets(state)) == 9
        assert "a worker could not log in" in job.said
        assert 1 <= state.counts["wrong passwords"] <= 2


@pytest.mark.heavy
def test_a_run_by_password_and_temporary_keys_leaves_no_secret(
    logged_out: pytest.MonkeyPatch, objects: Path, run: RunMaker
) -> None:
    """User and password over TLS through a proxy; the S3 keys expire in the middle, and others are fetched."""
    for name, value in {**PLANTED, "EARTHDATA_USERNAME": "ada", "EARTHDATA_PASSWORD": PASSWORD}.items():
        logged_out.setenv(name, value)
    with nasa_by_name(objects, logged_out.setenv) as state:
        state.users["ada"] = PASSWORD
        state.before = after(state, 30, "s3", state.expire_keys)
        assert run(state.services(), route="s3")(Secrets(state)) == 0
        assert state.counts["keys"] == 2
        assert state.counts["logins"] >= 1


TROUBLES = ("licence", "expired", "html", "password")


def _troubled(trouble: str, state: Nasa, patch: pytest.MonkeyPatch) -> str:
    """Make a run fail; part of the message that it must end in."""
    state.address_s = 30  # so that every read asks the distribution
    if trouble == "licence":
        state.licence_accepted = False
        return "licence"
    if trouble == "html":
        state.html = True
        return "HTML page"
    if trouble == "password":
        patch.delenv("EARTHDATA_TOKEN")
        return "no NASA Earthdata credentials"
    state.before = after(state, 20, "distribution", state.expire_tokens)
    return "revoked"


@pytest.mark.heavy
@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_run_that_fails_leaves_no_secret(
    secrets: Secrets, run: RunMaker, logged_out: pytest.MonkeyPatch, trouble: str
) -> None:
    """It ends with the code of a login that failed and says why, in the log of the run too, without any secret."""
    words = _troubled(trouble, secrets.nasa, logged_out)
    job = run(secrets.nasa.services())
    assert job(secrets) == 9
    assert words in job.said


def after(state: Nasa, number: int, role: str, change: Callable[[], None]) -> Callable[[str, Request], Reply | None]:
    """Do something when a server gets its so-and-so-manieth request."""

    def before(server: str, request: Request) -> Reply | None:
        if server == role and len(state.servers[role].log) == number:
            change()
        return None

    return before


# --- clusters


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every message that the client and the scheduler, which are of this process, send or receive."""
    from distributed.comm import tcp

    frames: list[bytes] = []
    to_frames, from_frames = tcp.to_frames, tcp.from_frames

    async def sent(*args: object, **kwargs: object) -> object:
        found = await to_frames(*args, **kwargs)
        frames.extend(bytes(frame) for frame in found)
        return found

    async def received(found: list[bytes], *args: object, **kwargs: object) -> object:
        frames.extend(bytes(frame) for frame in found)
        return await from_frames(found, *args, **kwargs)

    monkeypatch.setattr(tcp, "to_frames", sent)
    monkeypatch.setattr(tcp, "from_frames", received)
    return frames


@pytest.mark.heavy
@pytest.mark.parametrize("trouble", ["", "licence", "expired"])
def test_a_cluster_neither_keeps_nor_carries_a_secret(
    secrets: Secrets, run: RunMaker, logged_out: pytest.MonkeyPatch, wire: list[bytes], trouble: str
) -> None:
    """Graphs, tasks, results, errors: nothing that travels has a secret in it, nor do the workers' logs; workers find
    their credentials in their own environment."""
    logged_out.setenv("DASK_LOGGING__DISTRIBUTED", "debug")
    words = _troubled(trouble, secrets.nasa, logged_out) if trouble else ""
    job = run(secrets.nasa.services(), workers=2)
    assert job(secrets) == (9 if trouble else 0)
    assert words in job.said
    assert len(wire) > 100
    assert b"earthdata_hosts" in b"".join(wire)  # the settings did travel
    assert secrets.found_in(b"\n".join(wire)) == []


# --- objects and errors


def test_what_is_pickled_and_printed_has_no_secret(small: Secrets) -> None:
    """Settings, sources, targets and keepers of credentials, after they were used."""
    access = Access(services=small.nasa.services(), route="s3", attempts=1)
    source = ArchiveSource(access)
    source.read(small.nasa.href(PROTECTED), 0, 100)
    https = ArchiveSource(dataclasses.replace(access, route="https"))
    https.read(small.nasa.href(PROTECTED), 0, 100)
    things = [access, source, https, pickle.loads(pickle.dumps(source)), source.tally]
    for thing in things:
        assert small.found_in(pickle.dumps(thing) + repr(thing).encode()) == []
    for route in ("s3", "https"):
        routes = transport(dataclasses.replace(access, route=route)).routes
        target = routes.target(small.nasa.href(PROTECTED))
        for shown in (repr(target), repr(routes), repr(routes.earthdata), repr(routes.keys)):
            assert small.found_in(shown.encode()) == []


@pytest.mark.parametrize("trouble", ["expired", "licence", "html", "missing", "gone", "region", "refused"])
def test_no_error_has_a_secret_in_it(small: Secrets, trouble: str) -> None:
    """Its text, its repr, its pickle and its whole traceback, whatever is in the href."""
    state = small.nasa
    state.licence_accepted, state.html, state.near = trouble != "licence", trouble == "html", trouble != "region"
    if trouble == "expired":
        state.expire_tokens()
    if trouble == "gone":
        state.before = lambda role, request: Reply(reset=True)
    if trouble == "refused":
        state.before = lambda role, request: Reply(status=400, body=request.headers.get("authorization", "").encode())
    hidden = os.urandom(8).hex()  # a traceback shows the lines of this file
    small.others.append(hidden)
    access = Access(
        services=state.services(), route="s3" if trouble == "region" else "https", attempts=1, timeout_s=2.0
    )
    with pytest.raises(FetchError) as caught:
        ArchiveSource(access).read(
            state.href(f"{'gone.tif' if trouble == 'missing' else PROTECTED}?sig={hidden}"), 0, 100
        )
    lines = "".join(traceback.format_exception(caught.value))
    assert small.found_in(lines.encode() + repr(caught.value).encode() + pickle.dumps(caught.value)) == []
