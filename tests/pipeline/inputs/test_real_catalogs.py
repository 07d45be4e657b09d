"""Recorded answers and real granules parse as they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from servers.loopback import Reply, Request, json_reply, serving

from geofm_pipeline.catalogs import find_scenes, skipped
from geofm_pipeline.errors import ArchiveError, NothingFoundError
from geofm_pipeline.region import parse_region
from geofm_pipeline.years import parse_years

EARTH = parse_region("-180,-90,180,90")
_LP_DAAC = "https://data.lpdaac.earthdatacloud.nasa.gov/lp-prod-protected/HLSS30.020/{id}/{id}.{band}.tif"


def test_a_recorded_page_of_cmr_stac_needs_no_overrides(shared_data: Path) -> None:
    """Twenty real items: all assets by one template, thumbnails and s3 twins ignored, footprints valid."""
    page = shared_data / "stac" / "cmr-stac" / "land_process_post.json"
    table = find_scenes(str(page), EARTH, parse_years(2024))
    assert table.num_rows == 20
    assert set(table["href_template"].to_pylist()) == {_LP_DAAC}
    assert all(not row["hrefs"] and not row["missing"] for row in table.to_pylist())
    assert shapely.is_valid(shapely.from_wkb(np.array(table["footprint"].to_pylist(), dtype=object))).all()
    wanted = {f["id"]: f["properties"]["eo:cloud_cover"] for f in json.loads(page.read_text())["features"]}
    assert dict(zip(table["granule_id"].to_pylist(), table["cloud_cover"].to_pylist(), strict=True)) == wanted


@pytest.mark.parametrize("matched", [20, 130_799])
def test_recorded_answers_of_cmr_stac_are_a_search(shared_data: Path, matched: int) -> None:
    """The recorded landing page leads to a search whose recorded page is complete only if its count says so."""
    folder = shared_data / "stac" / "cmr-stac"
    landing = (folder / "connect_to_stac_search_lp_specific.json").read_text()
    root = (folder / "connect_to_stac.json").read_text()
    page = json.loads((folder / "land_process_post.json").read_text())
    page["context"]["matched"], page["links"] = matched, []
    empty = {**page, "features": [], "context": {**page["context"], "matched": 0}}

    def app(request: Request) -> Reply:
        path = request.path
        if path in ("/stac", "/stac/LPCLOUD"):
            document = root if path == "/stac" else landing
            return Reply(body=document.replace("https://cmr.earthdata.nasa.gov", server.url).encode())
        if path.endswith("/search"):
            return json_reply(page if "HLSS30" in request.query["collections"] else empty)
        return json_reply({"id": path.rsplit("/", 1)[1], "type": "Collection"})

    with serving(app) as server:
        if matched == 20:
            table = find_scenes(f"{server.url}/stac/LPCLOUD", EARTH, parse_years(2024))
            recorded = find_scenes(str(folder / "land_process_post.json"), EARTH, parse_years(2024))
            assert table.equals(recorded)
        else:
            with pytest.raises(ArchiveError, match="matched 130,799 items but delivered 20"):
                find_scenes(f"{server.url}/stac/LPCLOUD", EARTH, parse_years(2024))


def test_the_real_archive_is_found_by_place_and_year(shared_data: Path) -> None:
    """The clear granule of 2019 is found by a box on the Californian coast; 2020 has nothing and says so."""
    catalog = str(shared_data / "hls-archive" / "items.json")
    table = find_scenes(catalog, parse_region("-121,35,-120,36"), parse_years(2019))
    assert table["granule_id"].to_pylist() == ["HLS.L30.T10SFE.2019253T183445.v2.0"]
    row = table.to_pylist()[0]
    assert Path(row["href_template"].replace("{id}", row["granule_id"]).replace("{band}", "Fmask")).is_file()
    with pytest.raises(NothingFoundError, match="it holds years 2019"):
        find_scenes(catalog, EARTH, parse_years(2020))


def test_the_rich_dialect_of_stactools_is_read_by_file_names(shared_data: Path) -> None:
    """An item whose assets are called blue, swir_1, fmask and that has proj fields gives a whole row."""
    folder = shared_data / "stac" / "stactools"
    item = next(folder.glob("HLS.S30.*.json"))
    table = find_scenes(str(item), EARTH, parse_years(2022))
    row = table.to_pylist()[0]
    assert (row["tile"], row["sensor"], row["missing"], row["hrefs"]) == ("19LDD", "S30", [], [])


def test_items_of_other_eras_are_counted_and_not_choked_on(shared_data: Path, tmp_path: Path) -> None:
    """Items with CMR's old opaque ids are skipped and counted beside good ones."""
    good = json.loads((shared_data / "hls-archive" / "items.json").read_text())["features"]
    old = [{"type": "Feature", "id": "G1994512890-LPCLOUD", "geometry": None, "properties": {}, "assets": {}}]
    path = tmp_path / "mixed.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": old + good}))
    assert skipped(find_scenes(str(path), EARTH, parse_years(2019))) == {"not_hls": 1}
