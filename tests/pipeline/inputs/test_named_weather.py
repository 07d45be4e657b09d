"""TerraClimate, ARCO-ERA5 and ERA5-Land by name: only the chunks and hours that a region needs, and right months."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from servers import maps
from servers.loopback import App, Reply, Request, serving
from servers.reaching import html_page, reach, refusing

from geofm_pipeline.access.settings import Access
from geofm_pipeline.cells import owned_cells
from geofm_pipeline.cluster import InProcess
from geofm_pipeline.covariates import weather_monthly
from geofm_pipeline.covariates.weather_prepare import prepare_weather
from geofm_pipeline.covariates.weather_shelf import PreparedWeather
from geofm_pipeline.covariates.weather_steps import MONTH_DAYS
from geofm_pipeline.errors import ArchiveError, InputError
from geofm_pipeline.region import parse_region
from geofm_pipeline.years import parse_years

EARTH = parse_region("-180,-84,180,84")
TILE = "32TNS"  # 8.98 to 10.46° E, 45.94 to 46.97° N: one WorldCover cell and a strip of its western neighbour


@pytest.fixture(scope="module")
def cells() -> pa.Table:
    """The cells of one tile near 9-10° E, 46° N."""
    return owned_cells([TILE], EARTH, chip_size=256).table


def _lonlat(cells: pa.Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    lon, lat = (np.asarray(cells[name], dtype=np.float64) for name in ("lon", "lat"))
    return lon, lat


def _columns(table: pa.Table, letter: str) -> NDArray[np.float64]:
    return np.stack([np.asarray(table[f"wx_{letter}{month:02d}"], dtype=np.float64) for month in range(1, 13)])


def _prepare(
    folder: Path, access: Access, source: str, *, years: str = "2021", cache: Path | None = None
) -> PreparedWeather:
    return prepare_weather(
        folder, [TILE], source, years=parse_years(years), runner=InProcess(), access=access, cache=cache
    )


def _expected_terraclimate(cells: pa.Table, years: tuple[int, ...], first: int = 2019) -> tuple[Any, Any]:
    lon, lat = _lonlat(cells)
    when = np.arange(12) + 10 * np.mean([year - first for year in years])
    return maps.warmth(lon, lat) + when[:, None], 30 * maps.wetness(lon, lat) + when[:, None]


@pytest.mark.parametrize("tile", [TILE, "01KAB", "56HLH"])
def test_terraclimate_gives_the_months_of_the_years(tile: str) -> None:
    """Means of tmax and tmin and sums of ppt, unpacked, in chunks of the needed years and ground only."""
    cells = owned_cells([tile], EARTH, chip_size=256).table
    store = maps.terraclimate()
    with serving(maps.zarr_app("/cpdata/terraclimate.zarr", store)) as server:
        access = reach(server, terraclimate=f"{server.url}/cpdata/terraclimate.zarr")
        found = weather_monthly(cells, "terraclimate", years=parse_years("2020-2021"), access=access).table
    warm, wet = _expected_terraclimate(cells, (2020, 2021))
    plain = np.abs(cells["lon"].to_numpy()) < 179.4  # between the last and the first column the field is not linear
    np.testing.assert_allclose(_columns(found, "t")[:, plain], warm[:, plain], atol=0.02)
    np.testing.assert_allclose(_columns(found, "p")[:, plain], wet[:, plain], atol=0.1)
    for name in ("tmax", "tmin", "ppt"):
        asked = store.chunks_of(name)
        assert len(asked) == len(set(asked))  # each chunk once
        assert {chunk.split(".")[0] for chunk in asked} == {"1", "2"}  # 2020 and 2021 only
        assert len({chunk.partition(".")[2] for chunk in asked}) <= 4
    assert not store.chunks_of("ws")


def test_years_that_terraclimate_lacks_are_said(cells: pa.Table) -> None:
    """Two years more than there are: those there stand alone; none at all: the nearest stand in."""
    store = maps.terraclimate()
    with serving(maps.zarr_app("/t.zarr", store)) as server:
        access = reach(server, terraclimate=f"{server.url}/t.zarr")
        part = weather_monthly(cells, "terraclimate", years=parse_years("2021-2022"), access=access)
        none = weather_monthly(cells, "terraclimate", years=parse_years("2023"), access=access)
    assert "has nothing of 2022" in part.note
    np.testing.assert_allclose(_columns(part.table, "t"), _expected_terraclimate(cells, (2021,))[0], atol=0.02)
    assert "averages of 2019-2021 stand in" in none.note
    np.testing.assert_allclose(
        _columns(none.table, "t"), _expected_terraclimate(cells, (2019, 2020, 2021))[0], atol=0.02
    )


def _hours(year: int, every: int) -> NDArray[np.int64]:
    """Hours since 1900 of a year that are a multiple of `every` counted from 1970."""
    span = np.arange(np.datetime64(f"{year}-01-01T00", "h"), np.datetime64(f"{year + 1}-01-01T00", "h"))
    return (span[span.astype(np.int64) % every == 0] - maps.EPOCH).astype(np.int64)


def _by_month(hours: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    month = (maps.EPOCH + hours).astype("datetime64[M]").astype(np.int64) % 12
    return np.array([values[month == number].mean() for number in range(12)])


def test_arco_era5_is_a_sample_of_hours(cells: pa.Table) -> None:
    """Means of every 87th hour and sums of every 37th, by plain numpy; as many chunks as said, none twice."""
    store = maps.arco()
    with serving(maps.zarr_app("/gcp/ar/x.zarr-v3", store)) as server:
        access = reach(server, arco_era5="gs://gcp/ar/x.zarr-v3")
        found = weather_monthly(cells, "arco-era5", years=parse_years(2021), access=access)
    lon, lat = _lonlat(cells)
    warm, wet = _hours(2021, 87), _hours(2021, 37)
    when = _by_month(warm, maps.hourly_warmth(warm))
    np.testing.assert_allclose(_columns(found.table, "t"), maps.warmth(lon, lat) + when[:, None], atol=1e-3)
    rate = _by_month(wet, maps.hourly_rain(wet)) * 24 * np.array(MONTH_DAYS)
    np.testing.assert_allclose(_columns(found.table, "p"), maps.wetness(lon, lat) * rate[:, None], rtol=1e-4)
    assert sorted(store.chunks_of("2m_temperature")) == sorted(f"{hour}.0.0" for hour in warm)
    assert sorted(store.chunks_of("total_precipitation")) == sorted(f"{hour}.0.0" for hour in wet)
    assert warm.size + wet.size < 345
    assert not store.chunks_of("temperature")
    assert "every 37th hour" in found.note


def test_sampled_hours_stand_for_the_month() -> None:
    """The sample goes through the hours of the day: its monthly means stray little from those of all hours."""
    hours = _hours(2021, 1)
    whole = _by_month(hours, maps.hourly_warmth(hours))
    some = _by_month(_hours(2021, 87), maps.hourly_warmth(_hours(2021, 87)))
    assert np.abs(whole - some).max() < 1.5  # the day's course alone is ± 6 °C
    for every, least in ((87, 7), (37, 18)):
        sample = (maps.EPOCH + _hours(2021, every)).astype("datetime64[M]")
        assert np.unique(sample, return_counts=True)[1].min() >= least, every


def test_years_after_arcos_last_day_are_the_nearest_year(cells: pa.Table) -> None:
    """The axis goes on beyond the data: 2022 has no values, so 2021 stands in, and nothing else is read."""
    store = maps.arco()
    with serving(maps.zarr_app("/gcp/x.zarr-v3", store)) as server:
        access = reach(server, arco_era5="gs://gcp/x.zarr-v3")
        found = weather_monthly(cells, "arco-era5", years=parse_years(2022), access=access)
    assert "averages of 2021-2021 stand in" in found.note
    assert len(store.chunks_of("2m_temperature")) == _hours(2021, 87).size


@pytest.mark.parametrize("hourly", [False, True])
def test_era5_land_by_day_and_by_hour(cells: pa.Table, monkeypatch: pytest.MonkeyPatch, hourly: bool) -> None:
    """Daily means and sums, or hours whose precipitation adds up from 00 UTC, give the month; the token is sent."""
    store = maps.era5_land(("2020-12-25", "2022-01-05"), hourly=hourly)
    app = maps.with_basic(maps.zarr_app("/era5/x.zarr", store), "edh", "planted-token")
    monkeypatch.setenv("EARTHDATAHUB_TOKEN", "planted-token")
    with serving(app) as server:
        host = server.url.partition("://")[2]
        access = reach(server, era5_land=f"{server.url}/era5/x.zarr", era5_land_host=host)
        found = weather_monthly(cells, "era5-land", years=parse_years(2021), access=access)
    assert found.note == ""
    lon, lat = _lonlat(cells)
    hours = _hours(2021, 1)
    days = hours if hourly else hours[::24]
    when = _by_month(days, maps.hourly_warmth(days))
    np.testing.assert_allclose(_columns(found.table, "t"), maps.warmth(lon, lat) + when[:, None], atol=1e-2)
    daily = maps.hourly_rain(hours if not hourly else hours + 1).reshape(-1, 24).sum(axis=1)
    if hourly:  # of a day: the hours that end in it, 01 to 00 UTC
        daily = np.array([maps.hourly_rain(np.arange(h + 1, h + 25)).sum() for h in hours[::24]])
    rate = _by_month(hours[::24], daily) * np.array(MONTH_DAYS)
    np.testing.assert_allclose(_columns(found.table, "p"), maps.wetness(lon, lat) * rate[:, None], rtol=2e-3)
    asked = store.chunks_of("tp")
    assert len(asked) == len(set(asked))
    assert len({chunk.split("/", 2)[2] for chunk in asked}) == 1  # one place of 3 × 18


def test_era5_land_without_a_token_says_where_it_belongs(cells: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """401: the message names the variable and the choice to go on without; a wrong token is not repeated."""
    monkeypatch.setenv("NETRC", "/nonexistent")
    for token in ("", "planted-wrong-token"):
        monkeypatch.setenv("EARTHDATAHUB_TOKEN", token)
        app = maps.with_basic(maps.zarr_app("/x.zarr", maps.arco()), "edh", "right")
        with serving(app) as server:
            access = reach(era5_land=f"{server.url}/x.zarr", era5_land_host=server.url.partition("://")[2])
            with pytest.raises(ArchiveError, match="EARTHDATAHUB_TOKEN") as caught:
                weather_monthly(cells, "era5-land", years=parse_years(2021), access=access)
        assert "--weather none" in str(caught.value)
        assert "planted" not in str(caught.value)


@pytest.mark.parametrize("status", [403, 500])
def test_a_chunk_that_cannot_be_had_is_never_fill(cells: pa.Table, status: int) -> None:
    """Metadata answer, one chunk is refused or fails: an error with the choice, not a gap."""
    plain = maps.zarr_app("/t.zarr", maps.terraclimate())

    def app(request: Request) -> Reply:
        return Reply(status=status) if "/ppt/2." in request.path else plain(request)

    with serving(app) as server:
        access = reach(server, terraclimate=f"{server.url}/t.zarr")
        with pytest.raises(ArchiveError, match=f"TerraClimate.*{status}.*--weather none"):
            weather_monthly(cells, "terraclimate", years=parse_years("2021"), access=access)


def test_a_chunk_that_is_not_there_is_fill_and_counted(cells: pa.Table, tmp_path: Path) -> None:
    """404 for a chunk is fill, as Zarr has it: unknown weather, counted in the tally."""
    plain = maps.zarr_app("/t.zarr", maps.terraclimate())

    def app(request: Request) -> Reply:
        return Reply(status=404) if "/ppt/2." in request.path else plain(request)

    with serving(app) as server:
        access = reach(server, terraclimate=f"{server.url}/t.zarr")
        with pytest.raises(InputError, match="covers none of the region's cells"):
            weather_monthly(cells, "terraclimate", years=parse_years("2021"), access=access)
        made = _prepare(tmp_path, access, "terraclimate")
    assert made.tally.notes["Zarr chunks without an object (fill)"] > 0


def test_a_damaged_chunk_is_anrefusing(cells: pa.Table) -> None:
    """Bytes that do not decode are named with the source."""
    plain = maps.zarr_app("/t.zarr", maps.terraclimate())

    def app(request: Request) -> Reply:
        return Reply(body=b"damaged") if "/ppt/2." in request.path else plain(request)

    with serving(app) as server:
        access = reach(server, terraclimate=f"{server.url}/t.zarr")
        with pytest.raises(ArchiveError, match="--weather terraclimate"):
            weather_monthly(cells, "terraclimate", years=parse_years("2021"), access=access)


@pytest.mark.parametrize(
    ("app", "part"), [(refusing(500), "500"), (refusing(403), "403"), (refusing(404), ""), (html_page, "HTML")]
)
def test_a_weather_service_that_fails_is_an_error_with_a_choice(cells: pa.Table, app: App, part: str) -> None:
    """Errors, refusals, nothing there and pages: the message names the source."""
    with serving(app) as server:
        access = reach(server, terraclimate=f"{server.url}/t.zarr")
        with pytest.raises(ArchiveError, match="--weather terraclimate") as caught:
            weather_monthly(cells, "terraclimate", years=parse_years(2021), access=access)
    assert part in str(caught.value)
    assert "--weather none" in str(caught.value)
