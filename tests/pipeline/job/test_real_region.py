"""A real region by one command, all services imitated on loopback: search, land cover, weather, login and pixels."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from servers import maps
from servers.bucket import PublicBucket
from servers.cmr import Cmr
from servers.earthdata import BUCKET, Nasa, nasa
from servers.loopback import Loopback, Reply, Request, serving
from servers.monthly_archive import PREFIX, monthly_files

from geofm_model import Store
from geofm_pipeline.cli import run
from geofm_pipeline.simulator import Archive

from .conftest import job_words
from .test_job import dataset_bytes

pytestmark = pytest.mark.heavy


@dataclass
class World:
    """Everything outside, and the file that says where it is."""

    nasa: Nasa
    services: Path
    servers: dict[str, Loopback] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    """Names of servers that answer 503."""

    def requests(self, name: str) -> int:
        """Requests that a server had so far."""
        return len(self.servers[name].log)


def _items(archive: Archive, host: str) -> list[dict[str, Any]]:
    text = archive.items.read_text().replace('"./HLS', f'"{host}/HLS')
    found: list[dict[str, Any]] = json.loads(text)["features"]
    return found


@pytest.fixture
def world(archive: Archive, tmp_path: Path, logged_out: pytest.MonkeyPatch) -> Iterator[World]:
    """NASA's login, protected files and catalogues, WorldCover's bucket and TerraClimate's Zarr."""
    logged_out.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / BUCKET).symlink_to(archive.root)
    maps.write_worldcover(tmp_path / "maps", "N45E009", maps.patches(1, (10, 30, 40, 50)))
    with ExitStack() as stack:
        state = stack.enter_context(nasa(tmp_path / "objects"))
        logged_out.setenv("EARTHDATA_TOKEN", state.new_token())
        live = state.services()
        items = _items(archive, f"{live.probe.partition(f'/{BUCKET}/')[0]}/{BUCKET}")
        made = World(nasa=state, services=tmp_path / "services.yaml")
        months = [(2021, 12), *((2022, month) for month in range(1, 13)), (2023, 1)]
        apps = {
            "geoparquet": PublicBucket(monthly_files(items, months)),
            "cmr": Cmr(items),
            "maps": maps.folder_app(tmp_path / "maps", lists=False),
            "weather": maps.zarr_app("/cpdata/terraclimate.zarr", maps.terraclimate(2021, 2022)),
        }
        for name, app in apps.items():

            def guarded(request: Request, app: Any = app, name: str = name) -> Reply:
                return Reply(status=503) if name in made.down else app(request)

            made.servers[name] = stack.enter_context(serving(guarded))
        urls = {name: server.url for name, server in made.servers.items()}
        made.services.write_text(
            yaml.safe_dump(
                {
                    "geoparquet": f"s3://nasa-maap-data-store/{PREFIX}",
                    "cmr": urls["cmr"],
                    "cmr_stac": "http://127.0.0.1:9/stac",
                    "planetary_computer": "http://127.0.0.1:9/pc",
                    "terraclimate": f"{urls['weather']}/cpdata/terraclimate.zarr",
                    "buckets": {
                        "nasa-maap-data-store": {"region": "us-west-2", "endpoint": urls["geoparquet"]},
                        "esa-worldcover": {"region": "eu-central-1", "endpoint": urls["maps"]},
                        BUCKET: dataclasses.asdict(live.buckets[BUCKET]),
                    },
                    "earthdata_login": live.earthdata_login,
                    "earthdata_hosts": list(live.earthdata_hosts),
                    "earthdata_s3": dict(live.earthdata_s3),
                    "s3_credentials": live.s3_credentials,
                    "instance_metadata": "",
                    "probe": live.probe,
                }
            )
        )
        yield made


def words(world: World, archive: Archive, out: Path, *more: str) -> list[str]:
    """The command as a user writes it, but for the addresses and the size."""
    defaults = ("--catalog", "", "--land-cover", "", "--weather", "")
    return job_words(archive, out, *defaults, "--services", str(world.services), "--attempts", "2", *more)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_region_and_years_are_enough(world: World, archive: Archive, tmp_path: Path, workers: str) -> None:
    """Named services are the defaults: granules, land cover, weather and pixels arrive, are said and cited."""
    out = tmp_path / "out"
    assert run(words(world, archive, out, "--workers", workers)) == 0
    card = json.loads((out / "card.json").read_text())
    assert card["search"]["service"] == "geoparquet"
    assert card["frame"]["covariates"][0].startswith(("cl_", "lc_"))
    assert {"lc_10", "wx_t07"} <= set(card["frame"]["covariates"])
    names = {source["name"] for source in card["inputs"]["sources"]}
    assert {"worldcover", "terraclimate"} <= names
    assert all(source["licence"] and source["citation"] for source in card["inputs"]["sources"])
    stages = card["access"]["stages"]
    assert {"search", "covariates", "screening", "information", "pixels"} <= set(stages)
    assert card["access"]["login"] is True
    store = Store.open(out / "store.zarr")
    samples = pq.read_table(out / "samples.parquet")
    assert len(store) == samples.num_rows == 40
    assert np.isfinite(samples["weight"].to_numpy()).all()
    assert (out / "report.html").read_text().count("worldcover")
    assert "auto: geoparquet answered" in (out / "report.html").read_text()


def test_a_refused_command_is_none_of_the_dataset(world: World, archive: Archive, tmp_path: Path) -> None:
    """Searching anew for a dataset that has its granules is refused; the lines that make the dataset again stay so."""
    out = tmp_path / "out"
    assert run([*words(world, archive, out), "--dry-run"]) == 0
    before = json.loads((out / "card.json").read_text())["commands"]
    assert run([*words(world, archive, out), "--refresh"]) == 6
    assert json.loads((out / "card.json").read_text())["commands"] == before


def test_the_pixels_are_those_of_the_files_whatever_the_way(world: World, archive: Archive, tmp_path: Path) -> None:
    """Over https with redirects and by S3 with temporary keys the same bytes arrive as from a disk."""
    local = ("--land-cover", str(archive.land_cover), "--weather", str(archive.weather))
    assert run(job_words(archive, tmp_path / "disk")) == 0
    for route in ("https", "s3"):
        assert run(words(world, archive, tmp_path / route, *local, "--access", route)) == 0
        assert dataset_bytes(tmp_path / route) == dataset_bytes(tmp_path / "disk")


def test_a_service_that_is_down_is_stepped_over_and_said(
    world: World, archive: Archive, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The GeoParquet archive is away: CMR serves the same granules, and the user is told why."""
    assert run([*words(world, archive, tmp_path / "parquet"), "--dry-run"]) == 0
    world.down.add("geoparquet")
    assert run([*words(world, archive, tmp_path / "cmr"), "--dry-run", "--refresh"]) == 0
    said = capfd.readouterr().err
    assert "503" in said
    card = json.loads((tmp_path / "cmr" / "card.json").read_text())
    assert card["search"]["service"] == "cmr"
    assert [tried["service"] for tried in card["search"]["tried"]] == ["geoparquet"]
    one, other = (pq.read_table(tmp_path / name / "scenes.parquet") for name in ("parquet", "cmr"))
    assert one["granule_id"].equals(other["granule_id"])
    assert one["href_template"].equals(other["href_template"])


def test_weather_that_does_not_answer_names_the_way_on_without_it(
    world: World, archive: Archive, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A clear message with the choice, and the choice works."""
    world.down.add("weather")
    assert run([*words(world, archive, tmp_path / "out"), "--dry-run"]) == 4
    assert "--weather none" in capfd.readouterr().err
    assert run([*words(world, archive, tmp_path / "out", "--weather", "none"), "--dry-run"]) == 0


def test_a_second_dataset_searches_and_reads_maps_only_once(world: World, archive: Archive, tmp_path: Path) -> None:
    """What was found and measured for a region serves another dataset of it."""
    assert run([*words(world, archive, tmp_path / "one"), "--dry-run"]) == 0
    before = {name: world.requests(name) for name in ("geoparquet", "weather")}
    assert run([*words(world, archive, tmp_path / "two", "--seed", "5"), "--dry-run"]) == 0
    assert {name: world.requests(name) for name in before} == before
