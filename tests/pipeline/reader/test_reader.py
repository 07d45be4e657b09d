"""Promises of the chip reader: rasterio's pixels, exact costs, faults that are said and never filled."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geofm_pipeline.access.faults import Fault
from geofm_pipeline.access.settings import Access
from geofm_pipeline.access.source import ArchiveSource
from geofm_pipeline.access.tally import Tally
from geofm_pipeline.chips import Chip, ChipFailure, ChipRequest, ReadStats
from geofm_pipeline.cog import BlockChipReader
from geofm_pipeline.cog.header import CogHeader, read_header
from geofm_pipeline.errors import BlockReadError
from geofm_pipeline.hls.bands import BANDS
from geofm_pipeline.hls.granule import GranuleId
from geofm_pipeline.scenes import SceneRef

if TYPE_CHECKING:
    from tests.pipeline.reader.conftest import RangeServer

Scenes = tuple[SceneRef, ...]
Trusted = Callable[[str, int, int, int], NDArray[np.generic]]
Requests = Callable[..., ChipRequest]
HASTY = Access(attempts=3, first_wait_s=0.01, longest_wait_s=0.02, timeout_s=1.0, in_flight=4, requests_per_second=1e5)


def check_chip(chip: Chip | ChipFailure, request: ChipRequest, trusted: Trusted) -> None:
    """Every band and date equals rasterio's window."""
    assert isinstance(chip, Chip)
    assert chip.unit == request.unit
    window = (request.row_off, request.col_off, request.size)
    assert (chip.image.dtype, chip.fmask.dtype) == (np.int16, np.uint8)
    for t, scene in enumerate(request.scenes):
        for b, href in enumerate(scene.bands):
            np.testing.assert_array_equal(chip.image[t, b], trusted(href, *window))
        np.testing.assert_array_equal(chip.fmask[t], trusted(scene.fmask, *window))


def read_one(scene: SceneRef, request_for: Requests, row: int = 3328, col: int = 3328) -> Chip | ChipFailure:
    return next(BlockChipReader(threads=1).read([request_for((scene,), row, col, 256)]))


@settings(max_examples=25)
@given(size=st.integers(1, 700), data=st.data())
def test_any_window_equals_rasterios(
    scenes: Scenes, trusted: Trusted, request_for: Requests, size: int, data: st.DataObject
) -> None:
    """Any position and size, across blocks, partial edge blocks and blocks that are not stored."""
    row, col = data.draw(st.integers(0, 3660 - size)), data.draw(st.integers(0, 3660 - size))
    request = request_for(scenes[:1], row, col, size)
    check_chip(next(BlockChipReader(threads=2).read([request])), request, trusted)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_real_granules_equal_rasterio(shared_data: Path, trusted: Trusted, request_for: Requests, size: int) -> None:
    """Every chip of the chip grid that holds data in a real granule, all six bands and Fmask, bit for bit."""
    for name in ("HLS.L30.T10SFE.2019253T183445.v2.0", "HLS.L30.T04VER.2019182T213802.v2.0"):
        folder = shared_data / "hls-archive" / name
        scene = SceneRef(
            granule_id=name,
            sensor="L30",
            date=GranuleId.parse(name).day,
            bands=tuple(str(folder / f"{name}.B0{i}.tif") for i in range(2, 8)),
            fmask=str(folder / f"{name}.Fmask.tif"),
        )
        image = np.stack([trusted(href, 0, 0, 3660) for href in scene.bands])
        fmask = trusted(scene.fmask, 0, 0, 3660)
        cells = [(r, c) for r in range(0, 3661 - size, size) for c in range(0, 3661 - size, size)]
        requests = [
            request_for((scene,), r, c, size) for r, c in cells if (fmask[r : r + size, c : c + size] != 255).any()
        ]
        assert requests
        for request, chip in zip(requests, BlockChipReader(threads=2).read(requests), strict=True):
            assert isinstance(chip, Chip)
            window = np.s_[..., request.row_off : request.row_off + size, request.col_off : request.col_off + size]
            np.testing.assert_array_equal(chip.image[0], image[window])
            np.testing.assert_array_equal(chip.fmask[0], fmask[window])


def stored(scene: SceneRef, row: int, col: int) -> list[int]:
    """Stored length of a block in each of the seven files."""
    return [header_of(Path(href).read_bytes()).span(row, col)[1] for href in (*scene.bands, scene.fmask)]


def header_of(data: bytes) -> CogHeader:
    return read_header(lambda start, length: data[start : start + length])


def test_an_aligned_chip_costs_one_request_per_band_and_date(scenes: Scenes, request_for: Requests) -> None:
    """T·(B+1) block requests, T·(B+1) opens, and not one byte that is not needed besides the headers."""
    reader = BlockChipReader(threads=3)
    [chip] = reader.read([request_for(scenes, 3328, 3328, 256)])
    assert isinstance(chip, Chip)
    needed = sum(sum(stored(scene, 13, 13)) for scene in scenes)
    assert reader.stats == ReadStats(requests=21, opens=21, bytes_requested=needed + 21 * 16_384, bytes_needed=needed)


def test_files_are_opened_once_per_call(scenes: Scenes, request_for: Requests) -> None:
    """Many chips of one tile share 21 opens; empty blocks cost nothing; calls add up."""
    requests = [request_for(scenes, 256 * r, 256 * c, 256) for r in range(14) for c in range(14)]
    reader = BlockChipReader(threads=4)
    assert sum(1 for _ in reader.read(requests)) == 196
    assert reader.stats.opens == 21
    full = sum(np.count_nonzero([stored(scene, r, c) for r in range(14) for c in range(14)]) for scene in scenes[:1])
    assert 0 < full < 196 * 7
    once = reader.stats.requests
    list(reader.read(requests[-2:]))
    assert reader.stats.opens == 42
    assert reader.stats.requests == once + 42


@pytest.mark.parametrize("threads", [1, 4])
def test_sub_chips_of_a_block_share_its_request(
    scenes: Scenes, request_for: Requests, trusted: Trusted, threads: int
) -> None:
    """Sixteen chips of 64 px in one block cost one request per band and date together."""
    requests = [request_for(scenes[:1], 3328 + 64 * (i // 4), 3328 + 64 * (i % 4), 64, unit=i) for i in range(16)]
    reader = BlockChipReader(threads=threads)
    for request, chip in zip(requests, reader.read(requests), strict=True):
        check_chip(chip, request, trusted)
    needed = sum(stored(scenes[0], 13, 13))
    assert (reader.stats.requests, reader.stats.opens) == (7, 7)
    assert reader.stats.bytes_needed == 16 * needed
    assert reader.stats.bytes_requested == needed + 7 * 16_384


def test_a_small_cache_costs_requests_but_no_pixels(scenes: Scenes, request_for: Requests, trusted: Trusted) -> None:
    """Memory is bounded by the caches; what does not fit is read again."""
    requests = [request_for(scenes[:1], 3200 + 64 * (i % 2) * 2, 3328, 64, unit=i) for i in range(6)]
    reader = BlockChipReader(threads=1, cache_bytes=1, open_files=1)
    for request, chip in zip(requests, reader.read(requests), strict=True):
        check_chip(chip, request, trusted)
    assert (reader.stats.requests, reader.stats.opens) == (42, 42)


def test_chips_come_in_order_of_the_requests(scenes: Scenes, request_for: Requests) -> None:
    """Whatever finishes first; a failure keeps its place."""
    broken = replace(scenes[0], fmask="")
    requests = [request_for((broken if i % 5 == 2 else scenes[0],), 256 * (i % 14), 0, 256, unit=i) for i in range(60)]
    found = list(BlockChipReader(threads=4).read(requests))
    assert [chip.unit for chip in found] == list(range(60))
    assert [isinstance(chip, ChipFailure) for chip in found] == [i % 5 == 2 for i in range(60)]


def test_reading_ahead_is_bounded_and_stops_when_closed(scenes: Scenes, request_for: Requests) -> None:
    """A consumer that stops early has paid for a few chips, not for all."""
    reader = BlockChipReader(threads=2)
    chips = reader.read([request_for(scenes[:1], 3328, 3328, 256)] * 500)
    next(chips)
    chips.close()  # type: ignore[attr-defined]
    assert reader.stats.requests == 7


@pytest.mark.parametrize(("row", "col", "size"), [(-1, 0, 64), (0, -64, 64), (3597, 0, 64), (0, 3660, 64), (0, 0, 0)])
def test_windows_outside_the_tile_are_refused_at_once(
    scenes: Scenes, request_for: Requests, row: int, col: int, size: int
) -> None:
    """Before anything is read, with the window in the message."""
    with pytest.raises(ValueError, match="must lie inside the 3660 px of tile 10SFE"):
        BlockChipReader().read([request_for(scenes, row, col, size)])


def test_a_granule_of_another_tile_is_refused_at_once(scenes: Scenes, request_for: Requests) -> None:
    """A request that mixes tiles is our bug and never read."""
    request = replace(request_for(scenes, 0, 0, 64), tile="10SGE")
    with pytest.raises(ValueError, match="lies in tile 10SGE, but HLS"):
        BlockChipReader().read([request])


def with_file(scene: SceneRef, index: int, path: Path) -> SceneRef:
    """`scene` with another file for band `index`, 6 for the Fmask."""
    if index == 6:
        return replace(scene, fmask=str(path))
    return replace(scene, bands=(*scene.bands[:index], str(path), *scene.bands[index + 1 :]))


def test_a_missing_asset_is_a_failure_that_names_it(scenes: Scenes, request_for: Requests) -> None:
    """Granule, band by its file name, and the cause."""
    for scene, name in ((scenes[0], "B05"), (scenes[1], "B8A")):
        chip = read_one(replace(scene, bands=(*scene.bands[:3], "", *scene.bands[4:])), request_for)
        assert isinstance(chip, ChipFailure)
        assert (chip.error.granule, chip.error.band, chip.error.block) == (scene.granule_id, name, None)
        assert chip.error.cause == "the granule has no such asset"
        assert not chip.error.transient


@settings(max_examples=60)
@given(share=st.floats(0, 1), index=st.sampled_from([2, 6]))
def test_a_truncated_file_gives_its_pixels_or_a_failure(
    scenes: Scenes, request_for: Requests, tmp_path_factory: pytest.TempPathFactory, share: float, index: int
) -> None:
    """Cut anywhere: header, block tables, another block, the block, behind it."""
    whole = Path((*scenes[0].bands, scenes[0].fmask)[index]).read_bytes()
    cut = tmp_path_factory.getbasetemp() / "cut.tif"
    cut.unlink(missing_ok=True)
    length = int(len(whole) * share) if share > 0.1 else int(20_000 * share)
    cut.write_bytes(whole[:length])
    good = read_one(scenes[0], request_for)
    chip = read_one(with_file(scenes[0], index, cut), request_for)
    assert isinstance(good, Chip)
    if isinstance(chip, ChipFailure):
        assert chip.error.cause.startswith(("the file is truncated", "an empty file"))
        return
    np.testing.assert_array_equal(chip.image, good.image)
    np.testing.assert_array_equal(chip.fmask, good.fmask)


@settings(max_examples=300)
@given(at=st.integers(0), bit=st.integers(0, 7), in_header=st.booleans())
def test_a_flipped_bit_never_gives_other_pixels(
    scenes: Scenes,
    request_for: Requests,
    tmp_path_factory: pytest.TempPathFactory,
    at: int,
    bit: int,
    in_header: bool,
) -> None:
    """One flipped bit anywhere in header or block is harmless or a failure."""
    path = Path(scenes[0].bands[1])
    data = bytearray(path.read_bytes())
    header = header_of(bytes(data))
    start, length = (0, int(header.offsets[header.offsets > 0].min())) if in_header else header.span(13, 13)
    data[start + at % length] ^= 1 << bit
    flipped = tmp_path_factory.getbasetemp() / "flipped.tif"
    flipped.unlink(missing_ok=True)
    flipped.write_bytes(data)
    good, chip = read_one(scenes[0], request_for), read_one(with_file(scenes[0], 1, flipped), request_for)
    assert isinstance(good, Chip)
    if isinstance(chip, ChipFailure):
        assert (chip.error.band, chip.error.transient) == ("B03", False)
        return
    np.testing.assert_array_equal(chip.image, good.image)


def test_a_corrupt_block_is_named(scenes: Scenes, request_for: Requests, tmp_path: Path) -> None:
    """The failure says which block of which file, and chips of other blocks are not hit."""
    data = bytearray(Path(scenes[0].fmask).read_bytes())
    start, _ = header_of(bytes(data)).span(13, 13)
    data[start + 50] ^= 255
    (tmp_path / "bad.tif").write_bytes(data)
    scene = with_file(scenes[0], 6, tmp_path / "bad.tif")
    bad, good = BlockChipReader().read([request_for((scene,), 3328, 3328, 256), request_for((scene,), 3328, 3072, 256)])
    assert isinstance(bad, ChipFailure)
    assert (bad.error.band, bad.error.block) == ("Fmask", (13, 13))
    assert "corrupt" in bad.error.cause
    assert isinstance(good, Chip)


def test_files_that_are_not_what_their_name_says_are_refused(
    scenes: Scenes, request_for: Requests, tmp_path: Path, cog_writer: Callable[..., None]
) -> None:
    """Another tile, size, type or fill value, or a page instead of a file: a failure with the value."""
    full, small = np.ones((3660, 3660), dtype=np.int16), np.ones((300, 300), dtype=np.int16)
    page = tmp_path / "page.tif"
    page.write_text("<html>Earthdata Login</html>")
    cases: list[tuple[Path, int, str]] = [(page, 0, "an HTML page, not a TIFF")]
    for name, index, pixels, options, cause in (
        ("tile", 0, full, {"tile": "10SGE"}, "the file belongs to another tile"),
        ("size", 0, small, {}, "300 rows × 300 columns, must be 3660 × 3660"),
        ("type", 0, full.astype(np.uint8), {}, "pixels of type uint8, must be int16"),
        ("fmask type", 6, full, {}, "pixels of type int16, must be uint8"),
        ("fill", 0, full, {"nodata": -1000}, "nodata value -1000, must be -9999"),
    ):
        cog_writer(tmp_path / f"{name}.tif", pixels, **options)
        cases.append((tmp_path / f"{name}.tif", index, cause))
    for path, index, cause in cases:
        chip = read_one(with_file(scenes[0], index, path), request_for)
        assert isinstance(chip, ChipFailure), path
        assert cause in chip.error.cause
        assert "login" not in chip.error.cause, "a file on disk has seen none"


def test_the_first_fault_in_order_of_dates_and_bands_is_given(scenes: Scenes, request_for: Requests) -> None:
    """Which fault a chip reports does not depend on threads."""
    bad = (
        scenes[0],
        replace(scenes[1], bands=(*scenes[1].bands[:5], "/nowhere.tif")),
        replace(scenes[2], fmask=""),
    )
    for _ in range(5):
        [chip] = BlockChipReader(threads=6).read([request_for(bad, 0, 0, 256)])
        assert isinstance(chip, ChipFailure)
        assert (chip.error.granule, chip.error.band) == (scenes[1].granule_id, "B12")


def test_a_broken_file_is_asked_for_once(scenes: Scenes, request_for: Requests) -> None:
    """Chips that share a file that does not exist cost one open of it."""
    scene = replace(scenes[0], bands=("/nowhere.tif", *scenes[0].bands[1:]))
    reader = BlockChipReader(threads=2)
    found = list(reader.read([request_for((scene,), 0, 0, 256)] * 10))
    assert all(isinstance(chip, ChipFailure) for chip in found)
    assert replace(reader.stats, tally=Tally()) == ReadStats(requests=0, opens=1, bytes_requested=16_384)
    assert reader.stats.tally.failures == {Fault.MISSING: 1}


def test_over_http_the_same_chips_for_the_same_requests(
    scenes: Scenes, remote: Scenes, request_for: Requests, range_server: RangeServer, trusted: Trusted
) -> None:
    """One HTTP request per counted request; pixels and counts equal the local ones."""
    windows = [(3328, 3328), (0, 0), (256, 256)]
    local, over_http = BlockChipReader(threads=4), BlockChipReader(threads=4, source=ArchiveSource(HASTY))
    list(local.read([request_for(scenes, row, col, 256) for row, col in windows]))
    chips = list(over_http.read([request_for(remote, row, col, 256) for row, col in windows]))
    for (row, col), chip in zip(windows, chips, strict=True):
        check_chip(chip, request_for(scenes, row, col, 256), trusted)
    assert replace(over_http.stats, tally=Tally()) == local.stats
    assert over_http.stats.tally.requests == over_http.stats.requests + over_http.stats.opens
    assert len(range_server.log) == local.stats.requests + local.stats.opens


def test_transient_faults_change_no_pixel_and_are_counted(
    scenes: Scenes, remote: Scenes, request_for: Requests, range_server: RangeServer, trusted: Trusted
) -> None:
    """A fault of each kind on each file ends in the same chip, with one retry each."""
    faults = ("503", "429", "reset", "short", "500", "502", "408")
    for fault, href in zip(faults, (*remote[0].bands, remote[0].fmask), strict=True):
        range_server.faults["/" + Path(href).name] = deque([fault])
    reader = BlockChipReader(threads=4, source=ArchiveSource(HASTY))
    [chip] = reader.read([request_for(remote[:1], 3328, 3328, 256)])
    check_chip(chip, request_for(scenes[:1], 3328, 3328, 256), trusted)
    assert reader.stats.tally.retry_count in (6, 7)  # libcurl itself replaces a kept connection that was reset


def test_a_transient_fault_that_lasts_stops_the_read(
    remote: Scenes, request_for: Requests, range_server: RangeServer
) -> None:
    """It is raised, not turned into a failure that would be recorded for ever; chips before it are given."""
    range_server.faults["/" + Path(remote[2].bands[3]).name] = deque(["always 503"])
    chips = BlockChipReader(threads=1, source=ArchiveSource(HASTY)).read(
        [request_for(remote[:2], 0, 0, 256), request_for(remote, 0, 0, 256)]
    )
    assert isinstance(next(chips), Chip)
    with pytest.raises(BlockReadError, match="the server answered 503") as caught:
        next(chips)
    assert caught.value.transient
    assert (caught.value.granule, caught.value.band) == (remote[2].granule_id, "B05")


def test_a_missing_file_on_a_server_is_a_failure(
    remote: Scenes, request_for: Requests, range_server: RangeServer
) -> None:
    """A 404 names granule and band and condemns this chip only."""
    range_server.faults["/" + Path(remote[0].bands[0]).name] = deque(["always 404"])
    [chip] = BlockChipReader(source=ArchiveSource(HASTY)).read([request_for(remote[:1], 0, 0, 256)])
    assert isinstance(chip, ChipFailure)
    assert "no such file" in str(chip.error)
    assert str(chip.error).startswith(f"{remote[0].granule_id} B02: ")


@pytest.mark.parametrize(
    ("fault", "cause"),
    [("html", "an HTML page instead of data"), ("401", "wants a login"), ("403", "refused access")],
)
def test_a_failed_login_stops_the_run(
    remote: Scenes, request_for: Requests, range_server: RangeServer, fault: str, cause: str
) -> None:
    """A login page or a refusal says nothing about the file: no chip becomes a failure because of it."""
    range_server.faults["/" + Path(remote[0].bands[0]).name] = deque([f"always {fault}"])
    with pytest.raises(BlockReadError, match=cause) as caught:
        list(BlockChipReader(source=ArchiveSource(HASTY)).read([request_for(remote[:1], 0, 0, 256)]))
    assert caught.value.transient


def test_a_file_that_is_cut_on_the_server_is_a_failure(
    scenes: Scenes, request_for: Requests, range_server: RangeServer
) -> None:
    """A body that ends because the file does is permanent, unlike one that ends because the connection did."""
    name = "cut.tif"
    whole = Path(scenes[0].bands[0]).read_bytes()
    start, length = header_of(whole).span(13, 13)
    (range_server.root / name).write_bytes(whole[: start + length // 2])
    scene = replace(scenes[0], bands=(f"{range_server.url}/{name}", *scenes[0].bands[1:]))
    reader = BlockChipReader(source=ArchiveSource(HASTY))
    [chip] = reader.read([request_for((scene,), 3328, 3328, 256)])
    assert isinstance(chip, ChipFailure)
    assert "the file is truncated: the block needs bytes" in chip.error.cause
    assert reader.stats.tally.retries == {"bytes that made no sense": 1}  # asked for once more before it is condemned


@pytest.mark.parametrize("request_number", [0, 1])
def test_bytes_that_were_spoilt_on_the_way_condemn_no_file(
    scenes: Scenes,
    remote: Scenes,
    request_for: Requests,
    range_server: RangeServer,
    trusted: Trusted,
    request_number: int,
) -> None:
    """A header or a block that makes no sense is fetched once more: a proxy may have garbled it."""
    name = "/" + Path(remote[0].bands[2]).name
    range_server.faults[name] = deque([""] * request_number + ["garbled"])
    reader = BlockChipReader(source=ArchiveSource(HASTY))
    [chip] = reader.read([request_for(remote[:1], 3328, 3328, 256)])
    check_chip(chip, request_for(scenes[:1], 3328, 3328, 256), trusted)
    assert reader.stats.tally.retries == {"bytes that made no sense": 1}


def test_many_threads_read_what_one_reads(scenes: Scenes, request_for: Requests) -> None:
    """Pixels and costs do not depend on the number of threads."""
    requests = [request_for(scenes, row, col, 128) for row in (128, 256, 3200) for col in range(0, 3533, 128)]
    one, many = BlockChipReader(threads=1), BlockChipReader(threads=16)
    for a, b in zip(one.read(requests), many.read(requests), strict=True):
        assert isinstance(a, Chip)
        assert isinstance(b, Chip)
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.fmask, b.fmask)
    assert one.stats == many.stats


def test_a_folder_that_moved_is_read_where_it_is(scenes: Scenes, request_for: Requests, tmp_path: Path) -> None:
    """file:// URLs with spaces work like paths."""
    folder = tmp_path / "with space"
    folder.mkdir()
    moved = [shutil.copy(href, folder) for href in (*scenes[0].bands, scenes[0].fmask)]
    urls = [Path(path).as_uri() for path in moved]
    scene = replace(scenes[0], bands=tuple(urls[: len(BANDS)]), fmask=urls[-1])
    chip, same = read_one(scene, request_for), read_one(scenes[0], request_for)
    assert isinstance(chip, Chip)
    assert isinstance(same, Chip)
    np.testing.assert_array_equal(chip.image, same.image)
