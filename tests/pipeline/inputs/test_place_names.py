"""Place names come from Natural Earth through a cache, with helpful answers when unknown, ambiguous or offline."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cartopy
import geopandas as gpd
import pytest
from servers.loopback import Reply, Request, serving
from shapely.geometry import MultiPolygon, box

from geofm_pipeline.errors import InputError
from geofm_pipeline.region import parse_region

_COUNTRIES = [  # ADMIN, NAME, ISO_A2, ISO_A2_EH, ISO_A3, ISO_A3_EH, CONTINENT, box
    ("United States of America", "United States", "US", "US", "USA", "USA", "North America", (-125, 25, -67, 49)),
    ("Georgia", "Georgia", "GE", "GE", "GEO", "GEO", "Asia", (40, 41, 47, 44)),
    ("Mexico", "Mexico", "MX", "MX", "MEX", "MEX", "North America", (-117, 15, -87, 32)),
    ("Norway", "Norway", "-99", "NO", "-99", "NOR", "Europe", (5, 58, 30, 71)),
    ("Ivory Coast", "Côte d'Ivoire", "CI", "CI", "CIV", "CIV", "Africa", (-8, 5, -3, 10)),
    ("Kenya", "Kenya", "KE", "KE", "KEN", "KEN", "Africa", (34, -4, 42, 5)),
    ("Luxembourg", "Luxembourg", "LU", "LU", "LUX", "LUX", "Europe", (5.7, 49.4, 6.5, 50.2)),
    ("Fiji", "Fiji", "FJ", "FJ", "FJI", "FJI", "Oceania", None),
]
_STATES = [  # name, name_en, admin, iso_3166_2, box
    ("Georgia", "Georgia", "United States of America", "US-GA", (-85, 31, -81, 35)),
    ("California", "California", "United States of America", "US-CA", (-124, 33, -115, 42)),
    ("México", "Mexico", "Mexico", "MX-MEX", (-100, 19, -99, 20)),
    ("Luxembourg", "Luxembourg", "Belgium", "BE-WLX", (5, 49.5, 5.8, 50.2)),
    ("Amazonas", "Amazonas", "Brazil", "BR-AM", (-70, -8, -58, 2)),
    ("Amazonas", "Amazonas", "Peru", "PE-AMA", (-78, -7, -77, -3)),
]
_FIJI = MultiPolygon([box(177, -19, 180, -16), box(-180, -19, -179, -16)])


def _zipped(tmp_path: Path, frame: gpd.GeoDataFrame, name: str) -> bytes:
    folder = tmp_path / name
    folder.mkdir()
    frame.to_file(folder / f"{name}.shp", encoding="utf-8")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return packed.getvalue()


def _natural_earth(tmp_path: Path) -> dict[str, bytes]:
    columns = ("ADMIN", "NAME", "ISO_A2", "ISO_A2_EH", "ISO_A3", "ISO_A3_EH", "CONTINENT")
    countries = gpd.GeoDataFrame(
        [dict(zip(columns, row[:-1], strict=True)) for row in _COUNTRIES],
        geometry=[_FIJI if row[-1] is None else box(*row[-1]) for row in _COUNTRIES],
        crs="EPSG:4326",
    )
    states = gpd.GeoDataFrame(
        [dict(zip(("name", "name_en", "admin", "iso_3166_2"), row[:-1], strict=True)) for row in _STATES],
        geometry=[box(*row[-1]) for row in _STATES],
        crs="EPSG:4326",
    )
    names = {"ne_10m_admin_0_countries": countries, "ne_10m_admin_1_states_provinces": states}
    return {f"/10m_cultural/{name}.zip": _zipped(tmp_path, frame, name) for name, frame in names.items()}


@pytest.fixture
def requests_seen() -> list[str]:
    """Paths that the mirror was asked for."""
    return []


@pytest.fixture
def cache(tmp_path: Path, requests_seen: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder whose source is a mirror on loopback, set as cartopy documents it."""
    files = _natural_earth(tmp_path)

    def app(request: Request) -> Reply:
        requests_seen.append(request.path)
        return Reply(body=files[request.path]) if request.path in files else Reply(status=404)

    loader = cartopy.config["downloaders"][("shapefiles", "natural_earth")]
    with serving(app) as server:
        monkeypatch.setattr(
            loader, "url_template", server.url + "/{resolution}_{category}/ne_{resolution}_{name}.zip", raising=True
        )
        yield tmp_path / "cache"


@pytest.mark.parametrize(
    ("text", "name", "bounds"),
    [
        ("Kenya", "Kenya", (34, -4, 42, 5)),
        ("kenya", "Kenya", (34, -4, 42, 5)),
        ("KEN", "Kenya", (34, -4, 42, 5)),
        ("NO", "Norway", (5, 58, 30, 71)),
        ("NOR", "Norway", (5, 58, 30, 71)),
        ("United States", "United States of America", (-125, 25, -67, 49)),
        ("cote d'ivoire", "Ivory Coast", (-8, 5, -3, 10)),
        ("california", "California, United States of America", (-124, 33, -115, 42)),
        ("US-CA", "California, United States of America", (-124, 33, -115, 42)),
        ("Georgia (country)", "Georgia", (40, 41, 47, 44)),
        ("Georgia, United States of America", "Georgia, United States of America", (-85, 31, -81, 35)),
        ("Georgia, usa", "Georgia, United States of America", (-85, 31, -81, 35)),
        ("Georgia (state)", "Georgia, United States of America", (-85, 31, -81, 35)),
        ("Mexico", "Mexico", (-117, 15, -87, 32)),
        ("México, Mexico", "México, Mexico", (-100, 19, -99, 20)),
        ("Amazonas, Peru", "Amazonas, Peru", (-78, -7, -77, -3)),
        ("africa", "Africa", (-8, -4, 42, 10)),
        ("Fiji", "Fiji", (-180, -19, 180, -16)),
    ],
)
def test_names_codes_and_qualified_forms_are_found(
    cache: Path, text: str, name: str, bounds: tuple[float, float, float, float]
) -> None:
    """Case, accents and punctuation do not matter; `NO` is Norway although Natural Earth has -99 there."""
    region = parse_region(text, cache=cache)
    assert (region.name, region.geometry.bounds) == (name, bounds)
    assert region.tiles is None


def test_the_second_use_needs_no_network(cache: Path, requests_seen: list[str]) -> None:
    """Each archive is fetched once; the cache holds whole shapefiles and nothing else."""
    parse_region("Kenya", cache=cache)
    parse_region("California", cache=cache)
    assert len(requests_seen) == 2
    assert {file.suffix for file in cache.rglob("*") if file.is_file()} <= {".shp", ".shx", ".dbf", ".prj", ".cpg"}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Georgia", ["'Georgia (country)'", "'Georgia, United States of America'"]),
        ("Amazonas", ["'Amazonas, Brazil'", "'Amazonas, Peru'"]),
        ("Luxembourg", ["'Luxembourg (country)'", "'Luxembourg, Belgium'"]),
    ],
)
def test_an_ambiguous_name_lists_the_forms_that_work(cache: Path, text: str, parts: list[str]) -> None:
    """Every listed form, given back, names exactly one place."""
    with pytest.raises(InputError, match="names 2 places") as caught:
        parse_region(text, cache=cache)
    for part in parts:
        assert part in str(caught.value)
        parse_region(part.strip("'"), cache=cache)


@pytest.mark.parametrize(
    ("text", "near"), [("Californa", "California, United States"), ("Kenia", "Kenya"), ("Xyzzy", "check the spelling")]
)
def test_an_unknown_name_suggests_near_ones(cache: Path, text: str, near: str) -> None:
    """A misspelt name is answered with names that exist."""
    with pytest.raises(InputError, match="no country, state or continent") as caught:
        parse_region(text, cache=cache)
    assert near in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"<html>not found</html>"])
def test_without_a_network_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    """A failed or wrong download names the address, the cache folder and the other ways to give a region."""
    loader = cartopy.config["downloaders"][("shapefiles", "natural_earth")]
    with serving(lambda request: Reply(body=body, status=200 if body else 503)) as server:
        monkeypatch.setattr(loader, "url_template", server.url + "/{name}.zip")
        with pytest.raises(InputError, match="Natural Earth") as caught:
            parse_region("Kenya", cache=tmp_path / "cache")
    for part in (server.url, str(tmp_path / "cache"), "bbox W,S,E,N", "vector file", "MGRS tile ids"):
        assert part in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.shp"))
