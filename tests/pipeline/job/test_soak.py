"""The main job over a network where every twentieth answer is bad in some way ends in the very same bytes."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from servers.faulty import spoilt
from servers.loopback import Loopback, Reply, Request, serving

from geofm_pipeline.cli import run
from geofm_pipeline.simulator import Archive, simulate

from .test_job import dataset_bytes

pytestmark = pytest.mark.heavy
KINDS = (
    *("429 retry-after 0", "503 retry-after 0", "500", "502", "504", "408"),
    *("reset", "short", "less", "slow", "silent", "stall", "other-range", "garbled"),
)
FAULTY = 0.05


class Weather:
    """The archive behind a server on which a hash of the request's number decides what goes wrong."""

    def __init__(self, root: Path, share: float) -> None:
        self._files = {f"/{path.relative_to(root)}": path.read_bytes() for path in root.rglob("*") if path.is_file()}
        self._share = share
        self._garbled: set[tuple[str, tuple[int, int] | None]] = set()
        self.seen: Counter[str] = Counter()
        """Kind of fault → answers spoilt by it; '' for good ones."""

    def forget(self, name: str) -> None:
        """From now on there is no file of this name."""
        (path,) = (path for path in self._files if path.endswith(f"/{name}"))
        del self._files[path]

    def __call__(self, request: Request) -> Reply:
        body = self._files.get(request.path)
        whole = Reply(status=404) if body is None else Reply(body=body)
        dice = random.Random(request.number)
        chance, which = dice.random(), dice.random()
        kind = KINDS[int(which * len(KINDS))] if chance < self._share and request.path.endswith(".tif") else ""
        place = request.path, request.span
        if kind in ("other-range", "garbled") and (request.span or (0, 0))[0] == 0:
            kind = ""  # the beginning is what was asked for; and what a header says, no checksum guards
        if kind == "garbled" and place in self._garbled:
            kind = ""  # twice in a row it would be the file that is bad
        self._garbled |= {place} if kind == "garbled" else set()
        self.seen[kind] += 1
        return spoilt(kind, request, whole)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """One tile, sixteen blocks, fourteen passes."""
    out = tmp_path_factory.mktemp("soak") / "archive"
    return simulate(out, tiles=["32TNR"], years=[2022], seed=5, extent=(0, 1280, 1024, 1024), per_year=14)


@pytest.fixture
def weather(archive: Archive) -> Iterator[tuple[Loopback, Weather]]:
    """The server with faults."""
    app = Weather(archive.root, FAULTY)
    with serving(app) as server:
        yield server, app


def job(archive: Archive, catalog: str, out: Path, *more: str) -> list[str]:
    words = {
        "--region": "32TNR",
        "--years": "2022",
        "--catalog": catalog,
        "--land-cover": str(archive.land_cover),
        "--weather": str(archive.weather),
        "--chip-size": "64",
        "--timesteps": "3",
        "--samples": "500",
        "--min-clear": "0.4",
        "--group-shards": "1",
        "--timeout": "1",
        "--requests-per-second": "5000",
        "--out": str(out),
    }
    return [*(word for pair in words.items() for word in pair), *more]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_stormy_network_changes_no_byte_and_every_repeat_is_counted(
    archive: Archive, weather: tuple[Loopback, Weather], tmp_path: Path, workers: str
) -> None:
    """Thousands of reads with 5 % faults of all kinds give the store of a calm disk; the card counts the repeats."""
    server, app = weather
    assert run([*job(archive, str(archive.items), tmp_path / "calm"), "--workers", "0"]) == 0
    catalog = f"{server.url}/{archive.items.relative_to(archive.root)}"
    assert run([*job(archive, catalog, tmp_path / "storm"), "--workers", workers]) == 0
    assert dataset_bytes(tmp_path / "storm") == dataset_bytes(tmp_path / "calm")
    stages = json.loads((tmp_path / "storm" / "card.json").read_text())["access"]["stages"]
    assert stages["pixels"]["requests"] > 1500
    assert sum(stages[name]["requests"] for name in ("screening", "information", "pixels")) > 3000
    spoilt_answers = sum(count for kind, count in app.seen.items() if kind not in ("", "slow"))
    assert set(KINDS) <= set(app.seen)
    repeats: Counter[str] = Counter()
    for stage in stages.values():
        repeats.update(stage["retries"])
        assert stage["failures"] == {}
    # Overview blocks that lie side by side come by one request: garbled, it costs a repeat for each of them.
    more = repeats["bytes that made no sense"] - app.seen["garbled"]
    assert more >= 0
    # libcurl itself replaces a kept connection that was reset, so some resets cost no counted repeat
    assert spoilt_answers - app.seen["reset"] <= sum(repeats.values()) - more <= spoilt_answers
    assert repeats["5xx server error"] == sum(app.seen[kind] for kind in ("500", "502", "503 retry-after 0", "504"))
    assert repeats["429 too many requests"] == app.seen["429 retry-after 0"]
    assert repeats["timeout"] >= app.seen["408"] + app.seen["silent"]


def test_a_file_that_is_gone_is_buried_in_the_same_rows_and_counted(
    archive: Archive, weather: tuple[Loopback, Weather], tmp_path: Path
) -> None:
    """A band that the catalogue promises and the archive lacks: tombstones as on a disk that lacks it, failures in the
    card under their cause, and the storm around it changes nothing."""
    server, app = weather
    calm, storm = tmp_path / "calm", tmp_path / "storm"
    assert run([*job(archive, str(archive.items), calm), "--workers", "0"]) == 0
    used = Counter(name for row in pq.read_table(calm / "samples.parquet").to_pylist() for name in row["granules"])
    gone = f"{used.most_common()[-1][0]}.B04.tif"
    lacking = tmp_path / "archive"
    shutil.copytree(archive.root, lacking)
    (lost,) = lacking.rglob(gone)
    lost.unlink()
    app.forget(gone)
    shutil.rmtree(calm)
    items = archive.items.relative_to(archive.root)
    assert run([*job(archive, str(lacking / items), calm), "--workers", "0"]) == 0
    assert run([*job(archive, f"{server.url}/{items}", storm), "--workers", "0"]) == 0
    rows = [pq.read_table(out / "samples.parquet").to_pylist() for out in (calm, storm)]
    assert [row | {"state": ""} for row in rows[0]] == [row | {"state": ""} for row in rows[1]]
    buried = [row for row in rows[1] if row["state"] != "written"]
    assert 0 < len(buried) < len(rows[1]) / 2
    assert all(gone.partition(".v2.0")[0] in row["state"] and "no such file (404)" in row["state"] for row in buried)
    same = {name: data for name, data in dataset_bytes(calm).items() if "/c." in name}
    assert same
    assert same.items() <= dataset_bytes(storm).items()
    stages = json.loads((storm / "card.json").read_text())["access"]["stages"]
    assert stages["pixels"]["failures"].keys() == {"no such file"}
    assert stages["pixels"]["failures"]["no such file"] >= 1
