"""Promises of overview reads and of the information they give."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import rasterio
from numpy.typing import NDArray

from geofm_pipeline.access.settings import Access
from geofm_pipeline.access.source import ArchiveSource
from geofm_pipeline.chips import ReadStats
from geofm_pipeline.cog.header import HeaderError, read_levels
from geofm_pipeline.cog.overview import Overview, read_overview
from geofm_pipeline.errors import BlockReadError, InputError
from geofm_pipeline.hls import fmask
from geofm_pipeline.hls.bands import BANDS, FMASK, band_file
from geofm_pipeline.hls.granule import GranuleId
from geofm_pipeline.hls.grid import tile_grid
from geofm_pipeline.inform import Informer
from geofm_pipeline.overview_measures import MEASURED, TOO_FEW
from geofm_pipeline.scenes import SCENES, SceneRef
from geofm_pipeline.simulator import Archive
from geofm_sampling.information import descriptors, spectral_entropies
from geofm_sampling.tables import INFORMATION
from geofm_sampling.unit import cells_per_side, pack_units, unpack_units

HASTY = Access(attempts=2, first_wait_s=0.01, timeout_s=1.0, in_flight=4, requests_per_second=1e5)
LEVEL = {64: 1, 128: 2, 256: 3}
"""rasterio's overview level for each chip size: factors 4, 8 and 16."""


def scene_of(folder: Path, name: str = "") -> SceneRef:
    """A granule in a folder of its own."""
    name = name or folder.name
    granule = GranuleId.parse(name)
    return SceneRef(
        granule_id=name,
        sensor=granule.sensor,
        date=granule.day,
        bands=tuple(f"{folder}/{name}.{band_file(granule.sensor, band)}.tif" for band in BANDS),
        fmask=f"{folder}/{name}.Fmask.tif",
    )


def scene_table(folders: dict[str, str], missing: Sequence[str] = ()) -> pa.Table:
    """SCENES of granule id → folder or URL that holds its files."""
    ids = sorted(folders)
    parsed = [GranuleId.parse(name) for name in ids]
    columns: dict[str, list[Any]] = {
        "granule_id": ids,
        "sensor": [granule.sensor for granule in parsed],
        "tile": [granule.tile for granule in parsed],
        "time": [granule.time for granule in parsed],
        "cloud_cover": [0.0] * len(ids),
        "footprint": [b""] * len(ids),
        "href_template": [f"{folders[name]}/{{id}}.{{band}}.tif" for name in ids],
        "hrefs": [[] for _ in ids],
        "missing": [list(missing) for _ in ids],
    }
    return SCENES.check(pa.table(columns, schema=SCENES.schema()))


def cells(size: int) -> tuple[list[int], list[int]]:
    """All cells of a tile, by rows."""
    side = cells_per_side(size)
    row, col = np.divmod(np.arange(side * side), side)
    return row.tolist(), col.tolist()


def units_of(tile: str, size: int, row: Sequence[int], col: Sequence[int]) -> NDArray[np.uint64]:
    return pack_units(tile=tile, chip_size=size, cell_row=row, cell_col=col, year=2022, season=2)


def trusted_level(href: str, size: int) -> NDArray[np.generic]:
    """rasterio's pixels of the overview that belongs to a chip size."""
    with rasterio.open(href, overview_level=LEVEL[size]) as dataset:
        return np.asarray(dataset.read(1))


def read(scene: SceneRef, size: int, row: Sequence[int], col: Sequence[int]) -> tuple[Overview, ReadStats]:
    stats = ReadStats()
    return read_overview(ArchiveSource(), scene, rows=row, cols=col, chip_size=size, stats=stats), stats


def assert_as_rasterio(scene: SceneRef, size: int) -> None:
    """Every cell of every band equals 16 × 16 pixels of rasterio's overview."""
    row, col = cells(size)
    found, stats = read(scene, size, row, col)
    assert (found.faults, stats.opens) == ({}, 7)
    for index, band in enumerate((*BANDS, FMASK)):
        level = trusted_level(scene.href(band), size)
        mine = found.fmask if band == FMASK else found.image[:, index]
        for place, (r, c) in enumerate(zip(row, col, strict=True)):
            np.testing.assert_array_equal(mine[place], level[r * 16 : r * 16 + 16, c * 16 : c * 16 + 16])


@pytest.fixture(scope="module")
def granule(tiny_archive: Archive) -> Path:
    """Folder of the simulated granule with most data."""
    folders = sorted(path for path in tiny_archive.root.rglob("HLS.*") if path.is_dir())
    return max(folders, key=lambda folder: sum(path.stat().st_size for path in folder.iterdir()))


def filled(scene: SceneRef, size: int) -> tuple[list[int], list[int]]:
    """Cells whose Fmask overview has data everywhere, by rows."""
    level = trusted_level(scene.fmask, size)
    side = cells_per_side(size)
    blocks = (level[: side * 16, : side * 16] != 255).reshape(side, 16, side, 16).all(axis=(1, 3))
    row, col = np.nonzero(blocks)
    return row.tolist(), col.tolist()


def copied(folder: Path, target: Path) -> SceneRef:
    """A granule that may be damaged."""
    shutil.copytree(folder, target / folder.name, copy_function=shutil.copyfile)
    return scene_of(target / folder.name)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_overviews_equal_rasterios(granule: Path, size: int) -> None:
    """Bit for bit, every cell and band of a simulated granule, whose overviews have blocks of 128 pixels."""
    assert_as_rasterio(scene_of(granule), size)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_overviews_of_real_granules_equal_rasterios(shared_data: Path, size: int) -> None:
    """Likewise two real granules, whose overviews have blocks of 256 pixels and edges rounded down."""
    for name in ("HLS.L30.T10SFE.2019253T183445.v2.0", "HLS.L30.T04VER.2019182T213802.v2.0"):
        assert_as_rasterio(scene_of(shared_data / "hls-archive" / name), size)


def test_the_levels_of_a_file_and_a_chain_that_loops(granule: Path) -> None:
    """Full resolution and four overviews with the file's nodata; directories that point in a circle end, too."""
    data = bytearray(Path(scene_of(granule).bands[0]).read_bytes())

    def part(start: int, length: int) -> bytes:
        return bytes(data[start : start + length])

    levels = read_levels(part)
    assert [level.width for level in levels] == [3660, 1830, 915, 458, 229]
    assert {level.nodata for level in levels} == {-9999.0}
    first = int.from_bytes(data[4:8], "little")
    link = first
    while (after := next_directory(data, link)) != 0:
        link = after
    at = link + 2 + 12 * int.from_bytes(data[link : link + 2], "little")
    data[at : at + 4] = first.to_bytes(4, "little")
    assert {level.width for level in read_levels(part)} == {3660, 1830, 915, 458, 229}
    data[at : at + 4] = (len(data) + 5).to_bytes(4, "little")
    with pytest.raises(HeaderError, match="truncated"):
        read_levels(part)


def next_directory(data: bytes | bytearray, start: int) -> int:
    """Byte of the directory after the one at `start` of a classic TIFF."""
    at = start + 2 + 12 * int.from_bytes(data[start : start + 2], "little")
    return int.from_bytes(data[at : at + 4], "little")


def test_only_blocks_with_wanted_cells_are_read_and_each_once(granule: Path) -> None:
    """64 cells of one block cost what one cell costs: a header and one block per file."""
    scene = scene_of(granule)
    row, col = np.divmod(np.arange(64), 8)
    whole, cost = read(scene, 64, (row + 48).tolist(), (col + 16).tolist())
    one, single = read(scene, 64, [50], [20])
    assert cost == single
    assert (single.opens, single.requests) == (7, 7)
    np.testing.assert_array_equal(one.image[0], whole.image[2 * 8 + 4])


def test_blocks_side_by_side_cost_one_request(granule: Path) -> None:
    """The whole overview 16, four blocks, by one request per file."""
    _, cost = read(scene_of(granule), 256, *cells(256))
    assert cost.requests == 7


def test_the_information_is_that_of_the_clear_pixels(granule: Path, tmp_path: Path) -> None:
    """Entropy and descriptor of rasterio's pixels under the mask rule; rows in the order asked for."""
    scene = scene_of(granule)
    row, col = filled(scene, 64)
    assert len(row) > 5
    units = units_of(GranuleId.parse(scene.granule_id).tile, 64, row, col)[::-1]
    rule = fmask.MaskRule(bits=("cloud",))
    informer = Informer(scene_table({granule.name: str(granule)}), cache=tmp_path, chip_size=64, rule=rule)
    found = informer.inform(units, [granule.name] * units.size)
    assert INFORMATION.check(found)["unit"].to_pylist() == units.tolist()
    place = unpack_units(units)
    image = np.stack([trusted_level(scene.href(band), 64) for band in BANDS])
    mask = trusted_level(scene.fmask, 64)
    for i, (r, c) in enumerate(zip(place.cell_row, place.cell_col, strict=True)):
        window = np.s_[r * 16 : r * 16 + 16, c * 16 : c * 16 + 16]
        pixels, codes = image[(slice(None), *window)], mask[window]
        valid = (codes != 255) & (codes & 2 == 0) & (pixels != -9999).all(axis=0)
        entropy = spectral_entropies(pixels[None], valid[None])[0]
        np.testing.assert_array_equal(np.float32(found["entropy"][i].as_py()), entropy)
        numbers = [] if np.isnan(entropy) else descriptors(pixels[None], valid[None])[0].tolist()
        assert found["descriptor"][i].as_py() == numbers
    assert np.isfinite(found["entropy"].to_numpy()).sum() > 3


def test_batches_and_order_do_not_matter_and_nothing_is_read_twice(granule: Path, tmp_path: Path) -> None:
    """One unit at a time gives what all at once give; a second run reads no file."""
    scene = scene_of(granule)
    tile = GranuleId.parse(scene.granule_id).tile
    units = units_of(tile, 64, *(axis[:6] for axis in filled(scene, 64)))
    scenes = scene_table({granule.name: str(granule)})
    whole = Informer(scenes, cache=tmp_path / "a", chip_size=64).inform(units, [granule.name] * 6)
    single = Informer(scenes, cache=tmp_path / "b", chip_size=64)
    parts = [single.inform(units[i : i + 1], [granule.name]) for i in (3, 0, 5, 1, 4, 2)]
    assert pa.concat_tables(parts).sort_by("unit").equals(whole.sort_by("unit"))
    gone = scene_table({granule.name: str(tmp_path / "nowhere")})
    again = Informer(gone, cache=tmp_path / "a", chip_size=64)
    assert again.inform(units[::-1], [granule.name] * 6).equals(whole.take(pa.array(range(5, -1, -1))))
    assert (again.stats.units_cached, again.stats.units_read, again.stats.requests) == (6, 0, 0)
    assert [path.name for path in (tmp_path / "a").rglob("*.*")] == [f"{tile}.parquet"]


def test_tasks_travel(granule: Path, tmp_path: Path) -> None:
    """Batches and results pickle, so that a cluster's mapper can run them, in any order."""
    seen: list[int] = []

    def mapper(function: Callable[[Any], Any], batches: Sequence[Any], /) -> Iterator[Any]:
        for batch in reversed(batches):
            seen.append(len(batch.scenes))
            yield pickle.loads(pickle.dumps(function(pickle.loads(pickle.dumps(batch)))))

    scene = scene_of(granule)
    row, col = filled(scene, 64)
    units = units_of(GranuleId.parse(scene.granule_id).tile, 64, row[:2], col[:2])
    informer = Informer(scene_table({granule.name: str(granule)}), cache=tmp_path, chip_size=64, map_tasks=mapper)
    informer.inform(units, [granule.name] * 2)
    assert seen == [1]
    assert (informer.stats.granules_read, informer.stats.units_read) == (1, 2)
    assert informer.stats.bytes_read > 7 * 16_384


def test_clouds_leave_no_information(shared_data: Path, tmp_path: Path) -> None:
    """A real granule that is all cloud: NaN, an empty descriptor and the cause, which the cache keeps."""
    name = "HLS.L30.T04VER.2019182T213802.v2.0"
    units = units_of("04VER", 128, *cells(128))
    scenes = scene_table({name: str(shared_data / "hls-archive" / name)})
    informer = Informer(scenes, cache=tmp_path, chip_size=128)
    found = informer.inform(units, [name] * units.size)
    assert np.isnan(found["entropy"].to_numpy()).all()
    assert found["descriptor"].to_pylist() == [[]] * units.size
    assert informer.facts()["causes"] == {TOO_FEW: units.size}
    again = Informer(scenes, cache=tmp_path, chip_size=128)
    again.inform(units, [name] * units.size)
    assert (again.stats.requests, again.stats.without_information) == (0, units.size)


def test_a_missing_asset_and_a_file_without_overviews_are_causes(
    granule: Path, tmp_path: Path, cog_writer: Callable[..., None]
) -> None:
    """NaN with the cause, never an error; the next run tries again and finds the repaired file."""
    scene = copied(granule, tmp_path)
    tile = GranuleId.parse(scene.granule_id).tile
    units = units_of(tile, 64, *(axis[:2] for axis in filled(scene, 64)))
    bare = Path(scene.bands[2])
    with rasterio.open(bare) as dataset:
        pixels = dataset.read(1)
    cog_writer(bare, pixels, tile=tile)
    folder = {granule.name: str(bare.parent)}

    def causes(missing: Sequence[str] = ()) -> tuple[dict[str, int], NDArray[np.float32]]:
        informer = Informer(scene_table(folder, missing), cache=tmp_path / "cache", chip_size=64)
        found = informer.inform(units, [granule.name] * 2)
        assert informer.stats.without_information == int(np.isnan(found["entropy"].to_numpy()).sum())
        facts = informer.facts()["causes"]
        assert isinstance(facts, dict)
        return facts, found["entropy"].to_numpy()

    assert causes(["Fmask"])[0] == {"Fmask: the granule has no such asset": 2}
    [(cause, count)] = causes()[0].items()
    assert cause.startswith("B04: no overview that all bands have, of a factor among [2, 4]: it has none")
    assert count == 2
    shutil.copyfile(granule / bare.name, bare)
    assert causes()[1].size == 2
    assert causes()[0].keys() <= {TOO_FEW}


def test_a_damaged_block_hits_the_units_that_need_it(granule: Path, tmp_path: Path) -> None:
    """A flipped byte in one block: its units have no information, whoever is asked for along with them; others do."""
    scene = copied(granule, tmp_path)
    tile = tile_grid(GranuleId.parse(scene.granule_id).tile).tile
    row, col = filled(scene, 64)
    target = Path(scene.bands[3])
    data = bytearray(target.read_bytes())
    start, length = block_span(target, 64, row[0] * 16 // 128, col[0] * 16 // 128)
    data[start + length // 2] ^= 0xFF
    target.write_bytes(data)
    hit = [
        (r * 16 // 128, c * 16 // 128) == (row[0] * 16 // 128, col[0] * 16 // 128)
        for r, c in zip(row, col, strict=True)
    ]
    found, _ = read(scene, 64, row, col)
    assert [i in found.faults for i in range(len(row))] == hit
    assert all("corrupt" in error.cause for error in found.faults.values())
    assert (found.image[np.array(hit)] == -9999).all()
    informer = Informer(scene_table({granule.name: str(target.parent)}), cache=tmp_path / "c", chip_size=64)
    table = informer.inform(units_of(tile, 64, row, col), [granule.name] * len(row))
    assert np.isnan(table["entropy"].to_numpy()[np.array(hit)]).all()


def block_span(path: Path, size: int, block_row: int, block_col: int) -> tuple[int, int]:
    """(byte offset, length) of a block of the overview of a chip size, by GDAL's metadata."""
    with rasterio.open(path) as dataset:
        offset, length = (
            dataset.get_tag_item(f"BLOCK_{what}_{block_col}_{block_row}", "TIFF", bidx=1, ovr=LEVEL[size])
            for what in ("OFFSET", "SIZE")
        )
    return int(offset), int(length)


def test_a_truncated_file_is_a_cause(granule: Path, tmp_path: Path) -> None:
    """A file that ends in its header or before the wanted block."""
    scene = copied(granule, tmp_path)
    target = Path(scene.bands[0])
    row, col = filled(scene, 64)
    start, _ = block_span(target, 64, row[0] * 16 // 128, col[0] * 16 // 128)
    whole = target.read_bytes()
    for end in (start + 10, 3000):
        target.write_bytes(whole[:end])
        informer = Informer(scene_table({granule.name: str(target.parent)}), cache=tmp_path / str(end), chip_size=64)
        tile = GranuleId.parse(scene.granule_id).tile
        found = informer.inform(units_of(tile, 64, row[:1], col[:1]), [granule.name])
        assert np.isnan(found["entropy"].to_numpy()).all()
        causes = informer.facts()["causes"]
        assert isinstance(causes, dict)
        assert all(cause.startswith("B02: the file is truncated") for cause in causes)


def test_a_transient_fault_stops_and_keeps_what_was_measured(
    scenes: tuple[SceneRef, ...], remote: tuple[SceneRef, ...], range_server: Any, tmp_path: Path
) -> None:
    """A server that is down is no missing information: the run stops; nothing is concluded."""
    table = scene_table({scene.granule_id: range_server.url for scene in remote})
    range_server.faults["/" + Path(remote[0].bands[4]).name].append("always 503")
    informer = Informer(table, cache=tmp_path, chip_size=64, source=ArchiveSource(HASTY))
    with pytest.raises(BlockReadError, match="503") as caught:
        informer.inform(units_of("10SFE", 64, [3], [3]), [scenes[0].granule_id])
    assert caught.value.transient
    assert informer.stats.units_read == 0


def test_wrong_questions_are_refused(granule: Path, tmp_path: Path) -> None:
    """Another chip size, a granule of another tile or of no catalogue, lists of two lengths, a damaged cache."""
    tile = GranuleId.parse(granule.name).tile
    informer = Informer(scene_table({granule.name: str(granule)}), cache=tmp_path, chip_size=64)
    unit = units_of(tile, 64, [0], [0])
    with pytest.raises(ValueError, match="chip size of 64 px"):
        informer.inform(units_of(tile, 128, [0], [0]), [granule.name])
    with pytest.raises(ValueError, match="is not of tile"):
        informer.inform(unit, ["HLS.L30.T10SFE.2019253T183445.v2.0"])
    with pytest.raises(ValueError, match="not in the SCENES table"):
        informer.inform(unit, [f"HLS.L30.T{tile}.2019253T183445.v2.0"])
    with pytest.raises(ValueError, match="1 units need as many granule ids, got 2"):
        informer.inform(unit, [granule.name] * 2)
    assert informer.inform(unit[:0], []).num_rows == 0
    (tmp_path / "64px-rule14").mkdir(exist_ok=True)
    (tmp_path / "64px-rule14" / f"{tile}.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match=r"information cache .* delete this file"):
        Informer(scene_table({granule.name: str(granule)}), cache=tmp_path, chip_size=64).inform(unit, [granule.name])
    assert MEASURED.schema().names[:3] == list(INFORMATION.columns)
