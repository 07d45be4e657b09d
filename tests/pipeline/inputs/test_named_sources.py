"""Sources with a name in a whole plan: kept for other runs, in the card with their terms, without a secret."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from servers import maps
from servers.loopback import App, Loopback, Reply, Request, json_reply, serving
from servers.reaching import reach

from geofm_pipeline.access.routes import place_behind
from geofm_pipeline.access.services import Bucket, Services
from geofm_pipeline.access.settings import Access
from geofm_pipeline.card import Card
from geofm_pipeline.cells import owned_cells
from geofm_pipeline.cluster import InProcess, open_runner
from geofm_pipeline.config import SampleConfig
from geofm_pipeline.covariates import land_cover_fractions
from geofm_pipeline.covariates.named_sources import WORLDCOVER
from geofm_pipeline.covariates.weather_prepare import prepare_weather
from geofm_pipeline.covariates.weather_shelf import PreparedWeather
from geofm_pipeline.errors import InputError
from geofm_pipeline.options import absolute_sources, parse_options
from geofm_pipeline.progress import Progress
from geofm_pipeline.region import parse_region
from geofm_pipeline.stages.cells import make_cells
from geofm_pipeline.stages.inputs import Inputs, resolve_inputs, resolve_source
from geofm_pipeline.workspace import Workspace
from geofm_pipeline.years import parse_years
from geofm_sampling import Design

EARTH = parse_region("-180,-84,180,84")
TILE = "32TNS"  # 8.98 to 10.46° E, 45.94 to 46.97° N: one WorldCover cell and a strip of its western neighbour


def _prepare(
    folder: Path, access: Access, source: str, *, years: str = "2021", cache: Path | None = None
) -> PreparedWeather:
    return prepare_weather(
        folder, [TILE], source, years=parse_years(years), runner=InProcess(), access=access, cache=cache
    )


def test_means_are_kept_for_another_dataset(tmp_path: Path) -> None:
    """A second folder with the same ground and years asks for nothing; its files are the same."""
    with serving(maps.zarr_app("/t.zarr", maps.terraclimate())) as server:
        access = reach(server, terraclimate=f"{server.url}/t.zarr")
        one = _prepare(tmp_path / "a", access, "terraclimate", cache=tmp_path / "cache")
        first = len(server.log)
        other = _prepare(tmp_path / "b", access, "terraclimate", cache=tmp_path / "cache")
        assert len(server.log) == first > 0
        assert one.tally.requests >= first
        third = _prepare(tmp_path / "c", access, "terraclimate", cache=None)
    assert other.tally.requests == 0
    assert (
        (one.digest, one.notes, one.record)
        == (other.digest, other.notes, other.record)
        == (third.digest, third.notes, third.record)
    )
    assert {f.name: f.read_bytes() for f in (tmp_path / "a").iterdir()} == {
        f.name: f.read_bytes() for f in (tmp_path / "b").iterdir()
    }


@pytest.mark.parametrize("pattern", ["t-*.json", "*.npy", "prepared-*.json", "*.sha256"])
@pytest.mark.parametrize("harm", ["emptied", "flipped", "cut", "other"])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, pattern: str, harm: str) -> None:
    """Whatever was done to a file there, also through a run's own links to it: the same means come out, of a new
    folder and of the old one."""
    with serving(maps.zarr_app("/t.zarr", maps.terraclimate())) as server:
        access, cache = reach(server, terraclimate=f"{server.url}/t.zarr"), tmp_path / "cache"
        one = _prepare(tmp_path / "a", access, "terraclimate", cache=cache)
        whole = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
        damaged = sorted(cache.glob(pattern))
        assert damaged
        for path in damaged:
            data = path.read_bytes()
            middle = len(data) // 2
            new = {"emptied": b"", "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
                   "cut": data[:-7], "other": b"{}"}[harm]  # fmt: skip
            with path.open("r+b") as file:  # in place, as a disk does it: links show it, too
                file.truncate()
                file.write(new)
                file.truncate(len(new))
        for folder in ("b", "a"):
            again = _prepare(tmp_path / folder, access, "terraclimate", cache=cache)
            assert (again.digest, again.notes, again.record) == (one.digest, one.notes, one.record)
            assert {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} == whole


def test_years_that_are_lacking_are_looked_for_again(tmp_path: Path) -> None:
    """What a source lacked may come later: then the metadata are read again, but no chunk."""
    store = maps.terraclimate()
    with serving(maps.zarr_app("/t.zarr", store)) as server:
        access = reach(server, terraclimate=f"{server.url}/t.zarr")
        one = _prepare(tmp_path / "a", access, "terraclimate", years="2021-2022", cache=tmp_path / "cache")
        before = len(store.chunks_of("ppt"))
        other = _prepare(tmp_path / "b", access, "terraclimate", years="2021-2022", cache=tmp_path / "cache")
    assert len(store.chunks_of("ppt")) == before
    assert other.tally.requests > 0
    assert one.record is not None
    assert one.record.years_used == (2021,)
    assert one.record.years_lacking == (2022,)


# --- a whole plan


YEARS = parse_years("2021")
REGION = parse_region("9.1,46.0,10.4,46.9")


def _scenes() -> pa.Table:
    """The columns of SCENES that cells depend on."""
    rows = [{"tile": TILE, "time": datetime(2021, month, 3, tzinfo=UTC), "cloud_cover": 10.0} for month in range(1, 13)]
    schema = pa.schema([("tile", pa.string()), ("time", pa.timestamp("ms", tz="UTC")), ("cloud_cover", pa.float32())])
    return pa.Table.from_pylist(rows, schema=schema)


def _plan(
    out: Path, access: Access, *, cache: Path | None, runner: Any = None, **changes: Any
) -> tuple[pa.Table, Card]:
    inputs = Inputs(
        region=REGION, years=YEARS, catalog="auto", land_cover="worldcover", weather="terraclimate", access=access,
        cache=cache,
    )  # fmt: skip
    space = Workspace(root=out)
    space.work.mkdir(parents=True)
    card = Card(space.card)
    design = Design(samples=10, years=(2021,), chip_size=256, timesteps=2)
    inputs = dataclasses.replace(inputs, **changes)
    return make_cells(space, inputs, design, _scenes(), runner, Progress(io.StringIO()), card), card


@contextmanager
def _both(folder: Path) -> Iterator[tuple[Loopback, Access]]:
    """WorldCover and TerraClimate on one server."""
    maps.write_worldcover(folder, "N45E009", maps.patches(1, (10, 30, 40), 4))
    files, zarr = maps.folder_app(folder, lists=False), maps.zarr_app("/t.zarr", maps.terraclimate())
    with serving(lambda request: (zarr if request.path.startswith("/t.zarr") else files)(request)) as server:
        yield server, reach(server, terraclimate=f"{server.url}/t.zarr")


def test_a_plan_by_names_keeps_terms_years_and_cost_in_its_card(tmp_path: Path) -> None:
    """Licence, citation, years used and absent files are said and in the card; requests are counted."""
    with _both(tmp_path / "maps") as (server, access):
        found, card = _plan(tmp_path / "a", access, cache=None)
        asked = len(server.log)
    assert {"lc_10", "lc_30", "lc_40", "wx_t01", "wx_p12"} <= set(found.column_names)
    sources = card.section("inputs")["sources"]
    assert isinstance(sources, list)
    cover, weather = sources
    assert (cover["name"], cover["years_used"], cover["absent_files"]) == ("worldcover", [2021], 1)
    assert (weather["name"], weather["years_used"], weather["years_lacking"]) == ("terraclimate", [2021], [])
    assert "CC BY 4.0" in cover["licence"]
    assert "doi:10.1038/sdata.2017.191" in weather["citation"]
    said = json.loads((tmp_path / "a" / "card.json").read_text())["said"]
    assert any("CC BY 4.0" in sentence and "Zanaga" in sentence for sentence in said)
    stages = card.section("access")["stages"]
    assert isinstance(stages, dict)
    assert stages["covariates"]["requests"] >= asked > 10
    assert stages["covariates"]["failures"] == {}
    assert stages["covariates"]["notes"]["places without a land-cover file"] == 1
    assert card.section("inputs")["land_cover_legend"] == "ESA WorldCover, by its name"


def test_another_dataset_of_the_same_ground_reads_nothing_again(tmp_path: Path) -> None:
    """Files known to be there, shares and means come from the user's cache; only the absent cell is asked for again."""
    with _both(tmp_path / "maps") as (server, access):
        one, _ = _plan(tmp_path / "a", access, cache=tmp_path / "cache")
        first = len(server.log)
        other, _ = _plan(tmp_path / "b", access, cache=tmp_path / "cache", region=parse_region("9.5,46.2,10.0,46.6"))
        again = [request.path for request in server.log[first:]]
        third, _ = _plan(tmp_path / "c", access, cache=None)
    assert [path.split("_")[-2] for path in again] == ["N45E006"]
    assert one.equals(third)
    rows = {(r["cell_row"], r["cell_col"]): r for r in one.to_pylist()}
    assert 0 < other.num_rows < one.num_rows
    assert all(rows[r["cell_row"], r["cell_col"]] == r for r in other.to_pylist())


def test_another_endpoint_gets_nothing_of_the_first_ones_cache(tmp_path: Path) -> None:
    """With --services the same s3:// address may hold other data: shares, known files and means are kept apart."""
    other = tmp_path / "other"
    maps.write_worldcover(other, "N45E009", maps.patches(2, (50,), 4))
    zarr = maps.zarr_app("/bucket/t.zarr", maps.terraclimate())
    one_files, other_files = maps.folder_app(tmp_path / "one", lists=False), maps.folder_app(other, lists=False)
    maps.write_worldcover(tmp_path / "one", "N45E009", maps.patches(1, (10, 30, 40), 4))

    def app(files: App) -> App:
        return lambda request: (zarr if "/t.zarr" in request.path else files)(request)

    with serving(app(one_files)) as first, serving(app(other_files)) as second:
        here, there = (reach(server, terraclimate="gs://bucket/t.zarr") for server in (first, second))
        one, _ = _plan(tmp_path / "a", here, cache=tmp_path / "cache")
        two, _ = _plan(tmp_path / "b", there, cache=tmp_path / "cache")
        plain, _ = _plan(tmp_path / "c", there, cache=None)
        asked = [request.path for request in second.log]
    assert "lc_10" in one.column_names
    assert "lc_50" in two.column_names
    assert "lc_10" not in two.column_names
    assert two.equals(plain)
    assert sum("/t.zarr" in path for path in asked) == 2 * sum("/t.zarr" in request.path for request in first.log)


def test_workers_reach_the_sources_themselves(tmp_path: Path) -> None:
    """Two Dask workers give the table of this process, and their requests are counted, too."""
    with _both(tmp_path / "maps") as (server, access):
        one, _ = _plan(tmp_path / "a", access, cache=None)
        before = len(server.log)
        with open_runner(workers=2, scheduler=None, scratch=tmp_path / "dask") as runner:
            other, card = _plan(tmp_path / "b", access, cache=None, runner=runner)
        asked = len(server.log) - before
    assert one.equals(other)
    stages = card.section("access")["stages"]
    assert isinstance(stages, dict)
    assert stages["covariates"]["requests"] >= asked > 10


def test_no_token_is_kept_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted token is in no file of the dataset or the cache, and in no task."""
    monkeypatch.setenv("EARTHDATAHUB_TOKEN", "planted-token")
    secrets = [b"planted-token", base64.b64encode(b"edh:planted-token")]
    seen: list[bytes] = []

    class Weighing(InProcess):
        def run(self, task: Callable[[Any], Any], arguments: Sequence[Any]) -> Iterator[tuple[int, Any]]:
            seen.append(pickle.dumps(arguments))
            for position, result in super().run(task, arguments):
                seen.append(pickle.dumps(result))
                yield position, result

    zarr = maps.zarr_app("/x.zarr", maps.era5_land(("2020-12-25", "2022-01-05"), hourly=False))
    with serving(maps.with_basic(zarr, "edh", "planted-token")) as server:
        access = reach(era5_land=f"{server.url}/x.zarr", era5_land_host=server.url.partition("://")[2])
        found, _ = _plan(
            tmp_path / "a", access, cache=tmp_path / "cache", runner=Weighing(), land_cover=None, weather="era5-land"
        )
    assert np.isfinite(np.asarray(found["wx_t01"])).all()
    assert seen
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [secret for secret in secrets for content in (*seen, *written) if secret in content]


def test_blobs_of_the_planetary_computer_are_signed_and_kept_unsigned(tmp_path: Path) -> None:
    """TerraClimate's account wants a signature: it is fetched once, sent with every chunk, and in no file."""
    zarr = maps.zarr_app("/cpdata/t.zarr", maps.terraclimate())

    def app(request: Request) -> Reply:
        if request.path.startswith("/sas/"):
            return json_reply({"msft:expiry": "2100-01-01T00:00:00Z", "token": "se=2100&sig=planted-signature"})
        return zarr(request) if request.query.get("sig") == "planted-signature" else Reply(status=409)

    with serving(app) as server:
        account = f"http://cpdataeuwest.localhost:{server.port}/cpdata/t.zarr"
        access = reach(server, terraclimate=account, sas=f"{server.url}/sas", blob_suffix=f".localhost:{server.port}")
        made = _prepare(tmp_path / "a", access, "terraclimate", cache=tmp_path / "cache")
        assert sum(request.path.startswith("/sas/") for request in server.log) == 1
    assert made.record is not None
    assert made.record.address == account
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"planted-signature" in path.read_bytes()]


def test_the_real_worldcover_file_behind_its_key(shared_data: Path, tmp_path: Path) -> None:
    """A real file on a bucket of the same layout gives the shares of the local file, by an overview."""
    real = shared_data / "worldcover" / "ESA_WorldCover_10m_2021_v200_N00E006_Map.tif"
    key = tmp_path / "esa-worldcover" / "v200" / "2021" / "map" / real.name
    key.parent.mkdir(parents=True)
    key.symlink_to(real)
    cells = owned_cells(["32NKF"], EARTH, chip_size=256).table
    with serving(maps.folder_app(tmp_path, lists=False)) as server:
        found = land_cover_fractions(cells, "worldcover", years=YEARS, access=reach(server))
        read = sum(len(range(*request.span)) for request in server.log if request.span)
        assert len(server.log) < 25
    plain = land_cover_fractions(cells, str(real), years=YEARS)
    assert found.table.equals(plain.table)
    assert read < 600_000


# --- which source


@pytest.mark.parametrize(
    ("asked", "catalog", "source"),
    [
        (None, "auto", "worldcover"),
        (None, "cmr-stac", "worldcover"),
        (None, "planetary-computer", "worldcover"),
        (None, "items.json", None),
        (None, "https://stac.example/search", None),
        ("none", "auto", None),
        ("none", "items.json", None),
        ("io-lulc", "items.json", "io-lulc"),
        ("/maps/my.tif", "auto", "/maps/my.tif"),
    ],
)
def test_the_default_depends_on_the_catalogue(asked: str | None, catalog: str, source: str | None) -> None:
    """What is asked for counts; without it the default with NASA's catalogues, nothing with one of the user's own."""
    found, why = resolve_source(asked, WORLDCOVER, catalog)
    assert found == source
    assert bool(why) == (asked is None and source is None)


def test_words_stay_words_and_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`worldcover` is the source even where a folder has that name; `./worldcover` is the folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "worldcover").mkdir()
    values = {"region": "1,2,3,4", "strata": "land_cover", "catalog": "cmr", "weather": "terraclimate"}
    found = absolute_sources({**values, "land_cover": " WorldCover ", "catalog": "CMR"})
    assert (found["catalog"], found["land_cover"], found["weather"]) == ("cmr", "worldcover", "terraclimate")
    address = (tmp_path / "a b.json").as_uri()
    assert absolute_sources({**values, "catalog": address})["catalog"] == str(tmp_path / "a b.json")
    assert absolute_sources({**values, "land_cover": "./worldcover"})["land_cover"] == str(tmp_path / "worldcover")


def test_inputs_of_a_real_region_need_one_line() -> None:
    """A region and years are enough: catalogue auto, WorldCover and TerraClimate, kept in the user's cache."""
    config = SampleConfig(region="9,46,10,47", years="2021")
    found = resolve_inputs(config, Access(), Progress(io.StringIO()))
    assert (found.catalog, found.land_cover, found.weather) == ("auto", "worldcover", "terraclimate")
    assert found.cache is not None
    own = resolve_inputs(dataclasses.replace(config, catalog="/x/items.json"), Access(), Progress(io.StringIO()))
    assert (own.land_cover, own.weather) == (None, None)
    assert any("worldcover, io-lulc, none" in sentence for sentence in own.said)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (
            {"land_cover": "worldcovr"},
            ("--land-cover", "worldcover, io-lulc, none", "did you mean --land-cover worldcover?"),
        ),
        ({"land_cover": "x.tif"}, ("x.tif does not exist", "a URL")),
        ({"land_cover": "maps/*_Map.tif"}, ("a pattern must match",)),
        ({"weather": "era5"}, ("terraclimate, arco-era5, era5-land, none", "did you mean --weather")),
        ({"weather": "https://host/t.nc,p.nc,absent.nc"}, ()),
        ({"weather": "here.nc,absent.nc"}, ("/absent.nc does not exist",)),
        ({"weather": "*.nc"}, ("/*.nc does not exist",)),
        ({"land_cover": "*.nc"}, ("/*.nc does not exist",)),
        ({"land_cover": ""}, ("--land-cover '' does not exist",)),
        ({"catalog": " "}, ("--catalog is empty", "auto, geoparquet")),
        ({"weather": "http://[x/t.nc"}, ("is no address",)),
        ({"land_cover": "http://host:99999/m.tif"}, ("is no address",)),
    ],
)
def test_a_source_that_cannot_be_is_refused_before_any_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], parts: tuple[str, ...]
) -> None:
    """Neither a word, a URL nor something that is there: said at once, with the words and the one probably meant."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.nc").touch()
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    config = parse_options(["--region", "9,46,10,47", "--years", "2021", *words])
    if not parts:
        assert resolve_inputs(config, Access(), Progress(io.StringIO())).weather is not None
        return
    with pytest.raises(InputError) as caught:
        resolve_inputs(config, Access(), Progress(io.StringIO()))
    assert caught.value.exit_code == 2
    assert all(part in str(caught.value) for part in parts)


@pytest.mark.parametrize(
    "text", ["map.tif", "maps/*.tif", "maps", "./worldcover", "s3://bucket/m.tif", "none", "io-lulc"]
)
def test_a_source_that_may_be_is_left_to_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Files, folders, patterns that match, URLs and words pass."""
    monkeypatch.chdir(tmp_path)
    for name in ("maps", "worldcover"):
        (tmp_path / name).mkdir()
    for name in ("map.tif", "maps/a.tif"):
        (tmp_path / name).touch()
    config = parse_options(["--region", "9,46,10,47", "--years", "2021", "--land-cover", text])
    assert (resolve_inputs(config, Access(), Progress(io.StringIO())).land_cover is None) == (text == "none")


def test_the_place_behind_an_address_follows_the_services() -> None:
    """Endpoint, region and Google's storage are in it; an https address is its own place."""
    services = Services(buckets={"b": Bucket(region="eu-north-1"), "c": Bucket(region="x", endpoint="https://mirror")})
    assert place_behind("s3://b/k.tif", services) == "https://b.s3.eu-north-1.amazonaws.com/k.tif"
    assert place_behind("s3://c/k.tif", services) == "https://mirror/c/k.tif"
    assert place_behind("gs://d/k", Services(google_storage="https://other")) == "https://other/d/k"
    assert place_behind("https://host/k", services) == "https://host/k"
