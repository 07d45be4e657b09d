"""Every catalogue dialect, on disk and behind a web server, leads to the same granules and the same dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers.loopback import Reply, Request, json_reply, serving
from servers.maps import folder_app

from geofm_pipeline.catalogs import find_scenes
from geofm_pipeline.cli import run
from geofm_pipeline.region import parse_region
from geofm_pipeline.scenes import scene_refs
from geofm_pipeline.simulator import Archive
from geofm_pipeline.years import parse_years

from .conftest import job_words
from .test_job import dataset_bytes

FILES = {"static catalogue": "catalog.json", "ItemCollection": "items.json", "GeoParquet": "items.parquet"}
"""Dialect → file of a simulated archive."""
DIALECTS = [*FILES, "STAC API"]


class Service:
    """The archive on a web server: its files by name, and a STAC API whose items lie on disk or on the server."""

    def __init__(self, root: Path) -> None:
        self._files = folder_app(root)
        self._features = json.loads((root / "items.json").read_text())["features"]
        self.url, self.base = "", ""
        """Of the server; where the items of the API say that their files are."""

    def __call__(self, request: Request) -> Reply:
        name = request.path.removeprefix("/")
        if name in ("", "search") or name.startswith("collections/"):
            return json_reply(self._document(name, request.query))
        return self._files(request)

    def _document(self, name: str, query: dict[str, str]) -> dict[str, Any]:
        if name == "search":
            found = [self._placed(item) for item in self._features if item["collection"] in query["collections"]]
            return {"type": "FeatureCollection", "features": found, "links": [], "numberMatched": len(found)}
        words = {"stac_version": "1.0.0", "id": name.rpartition("/")[2] or "api", "description": "test"}
        if name:
            return {"type": "Collection", "links": [], **words}
        links = [{"rel": rel, "href": f"{self.url}/{rel}", "type": "application/json"} for rel in ("search", "data")]
        classes = [f"https://api.stacspec.org/v1.0.0/{part}" for part in ("core", "item-search")]
        return {"type": "Catalog", "links": links, "conformsTo": classes, **words}

    def _placed(self, item: dict[str, Any]) -> dict[str, Any]:
        assets = {
            key: {**asset, "href": f"{self.base}/{asset['href'].removeprefix('./')}"}
            for key, asset in item["assets"].items()
        }
        return {**item, "assets": assets}


@pytest.fixture(scope="module")
def service(archive: Archive) -> Iterator[Service]:
    """The small archive, served on loopback."""
    service = Service(archive.root)
    with serving(service) as server:
        service.url = server.url
        yield service


def catalog_of(archive: Archive, service: Service, dialect: str, place: str) -> str:
    """What --catalog is given: the files of the granules lie on disk or on the server, as the place says."""
    service.base = service.url if place == "http" else archive.root.as_uri()
    if dialect == "STAC API":
        return service.url
    return f"{service.url if place == 'http' else archive.root}/{FILES[dialect]}"


@pytest.mark.parametrize("place", ["disk", "http"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_lists_the_same_granules(archive: Archive, service: Service, dialect: str, place: str) -> None:
    """Same rows in the same order; every file lies where the catalogue says."""
    region, years = parse_region("32TNR"), parse_years(2022)
    wanted = find_scenes(str(archive.items), region, years)
    found = find_scenes(catalog_of(archive, service, dialect, place), region, years)
    columns = [name for name in wanted.column_names if not name.startswith("href")]
    assert found.select(columns).equals(wanted.select(columns))
    root = service.url if place == "http" else archive.root
    for ref in scene_refs(found):
        assert all(href.startswith(f"{root}/{ref.granule_id}/") for href in (*ref.bands, ref.fmask))


@pytest.fixture(scope="module")
def wanted(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The dataset that the ItemCollection on disk leads to."""
    out = tmp_path_factory.mktemp("wanted") / "out"
    assert run(job_words(archive, out)) == 0
    return dataset_bytes(out)


@pytest.mark.heavy
@pytest.mark.parametrize("place", ["disk", "http"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_leads_to_the_same_dataset(
    archive: Archive, service: Service, wanted: dict[str, bytes], tmp_path: Path, dialect: str, place: str
) -> None:
    """Plan, response, samples and every byte of the store are equal, whether files are read from disk or over http."""
    catalog = catalog_of(archive, service, dialect, place)
    assert run(job_words(archive, tmp_path / "out", "--catalog", catalog)) == 0
    assert dataset_bytes(tmp_path / "out") == wanted
