"""Verification finds every damage and says which samples it hits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from geofm_model import Store, StoreError
from geofm_pipeline.chips import Chip, ChipRequest
from geofm_pipeline.errors import GeofmError, InputError, OutputConflictError, StoreDamagedError
from geofm_pipeline.store import StoreSpec, VerifyReport, create, verify
from geofm_pipeline.store.files import file_crc32c
from geofm_pipeline.store.synthetic import (
    SyntheticReader,
    synthetic_chip,
    synthetic_requests,
    write_synthetic_store,
)

MakeSpec = Callable[..., StoreSpec]
IMAGE_0, IMAGE_1 = "image/c.0.0.0.0.0", "image/c.1.0.0.0.0"


def _places(store: Path, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    return np.asarray(zarr.open_array(store / "manifest" / f"{name}_index", mode="r")[...], dtype=np.uint64)


def _paths(report: VerifyReport) -> list[str]:
    return [finding.path for finding in report.findings]


def test_an_intact_store_passes(sealed: Path) -> None:
    """Nothing is found in a store as written, and every file and byte was looked at."""
    seen: list[tuple[int, int]] = []
    report = verify(sealed, progress=lambda done, total: seen.append((done, total)))
    assert report.ok
    files = [file for file in sealed.rglob("*") if file.is_file()]
    assert (report.files, report.bytes) == (len(files), sum(file.stat().st_size for file in files))
    assert seen[-1][0] == seen[-1][1]
    report.raise_if_damaged()


def test_a_report_is_one_sentence_or_the_damage(sealed: Path) -> None:
    """As text a report says what was checked, or what is wrong and how to repair it, as its error does."""
    report = verify(sealed)
    assert str(report).startswith(f"every byte is as written: 21 samples, {report.files} files, ")
    assert str(verify(sealed, deep=False)).startswith("every shard has the size that was written: 21 samples")
    (sealed / IMAGE_0).unlink()
    damaged = verify(sealed)
    with pytest.raises(StoreDamagedError) as error:
        damaged.raise_if_damaged()
    assert str(damaged) == str(error.value)
    assert IMAGE_0 in str(damaged)


def _missed(store: Path, positions: Callable[[str, int], range]) -> list[tuple[str, int]]:
    """Flip one bit at each position of each file in turn; returns the flips that verify did not find."""
    missed = []
    for file in sorted(file for file in store.rglob("*") if file.is_file()):
        data = file.read_bytes()
        name = file.relative_to(store).as_posix()
        for position in positions(name, len(data)):
            changed = bytearray(data)
            changed[position] ^= 1 << (position % 8)
            file.write_bytes(changed)
            try:
                if name not in _paths(verify(store, threads=1)):
                    missed.append((name, position))
            except GeofmError:
                pass  # the root document may be too damaged to go on, which is an error of its own
        file.write_bytes(data)
    return missed


@pytest.fixture
def tiny(tmp_path: Path, make_spec: MakeSpec) -> Path:
    """The smallest store with two shards."""
    write_synthetic_store(tmp_path, make_spec(n=3, timesteps=1, height=4, width=4, shard_size=2), SyntheticReader())
    return tmp_path / "store.zarr"


def test_flipped_bytes_are_found(tiny: Path) -> None:
    """A flipped bit in every file is found: shards and chunks at a stride of 5, documents of 101."""
    assert _missed(tiny, lambda name, size: range(0, size, 101 if name.endswith(".json") else 5)) == []


@pytest.mark.heavy
def test_every_flipped_byte_is_found(tiny: Path) -> None:
    """Every byte of every file, one by one."""
    assert _missed(tiny, lambda _, size: range(size)) == []


def test_a_flipped_byte_names_the_sample_it_hits(sealed: Path) -> None:
    """Damage inside a chunk hits that sample alone, with its unit; damage of the index hits the shard."""
    shard = sealed / IMAGE_1
    data = bytearray(shard.read_bytes())
    offset = int(_places(sealed, "image")[6, 0])
    data[offset + 30] ^= 1
    shard.write_bytes(data)
    finding = verify(sealed).findings[0]
    assert finding.samples.tolist() == [6]
    assert finding.units.tolist() == [int(zarr.open_array(sealed / "unit", mode="r")[6])]
    data[offset + 30] ^= 1
    data[-10] ^= 1
    shard.write_bytes(data)
    assert verify(sealed).findings[0].samples.tolist() == [4, 5, 6, 7]


def test_missing_short_long_and_swapped_shards_are_found(sealed: Path) -> None:
    """A shard that is not there, cut, grown or another one hits all its samples."""
    first, second = sealed / IMAGE_0, sealed / IMAGE_1
    one, two = first.read_bytes(), second.read_bytes()
    for data, problem in ((None, "missing"), (one[:-7], "bytes instead"), (one + b"x", "bytes instead")):
        first.unlink() if data is None else first.write_bytes(data)
        for deep in (True, False):
            report = verify(sealed, deep=deep)
            assert _paths(report) == [IMAGE_0]
            assert problem in report.findings[0].problem
            assert report.damaged.tolist() == [0, 1, 2, 3]
    first.write_bytes(two)
    second.write_bytes(one)
    assert verify(sealed).damaged.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_a_well_formed_shard_of_another_store_is_found(sealed: Path, tmp_path: Path, make_spec: MakeSpec) -> None:
    """A shard of equal size and chunk lengths, all its own checksums right, is found by the manifest's, by verify
    and by the reader: the CRC-32C of bytes that end in their own CRC-32C is a constant and would not tell."""
    spec, reader = make_spec(), Store.open(sealed)
    unit = synthetic_requests(spec)[1].chip.unit

    def one_count_off(request: ChipRequest) -> Chip:
        chip = synthetic_chip(request)
        chip.image[0, 0, 0, 0] += np.int16(request.unit == unit)
        return chip

    write_synthetic_store(tmp_path / "other", spec, SyntheticReader(one_count_off))
    other = tmp_path / "other" / "store.zarr" / IMAGE_0
    assert other.stat().st_size == (sealed / IMAGE_0).stat().st_size
    assert file_crc32c(other) == file_crc32c(sealed / IMAGE_0)
    shutil.copy(other, sealed / IMAGE_0)
    report = verify(sealed)
    assert _paths(report) == [IMAGE_0]
    assert report.damaged.tolist() == [1]
    with pytest.raises(StoreError, match="sample 1 of shard"):
        reader.sample(1)


def test_files_that_do_not_belong_are_found(sealed: Path) -> None:
    """A stray file anywhere, or a shard where all samples are tombstones, is named."""
    (sealed / "image" / ".DS_Store").write_bytes(b"")
    shutil.copy(sealed / IMAGE_0, sealed / "image" / "c.2.0.0.0.0")
    shutil.copy(sealed / IMAGE_0, sealed / "image" / "c.77.0.0.0.0")
    report = verify(sealed)
    assert sorted(_paths(report)) == ["image/.DS_Store", "image/c.2.0.0.0.0", "image/c.77.0.0.0.0"]
    assert report.damaged.tolist() == [8, 9, 10, 11]


@pytest.mark.parametrize("name", ["lon", "date", "split", "unit", "stratum", "sensor"])
def test_a_rewritten_metadata_array_is_found(sealed: Path, name: str) -> None:
    """A value changed by means of Zarr itself, checksums and all, is still not what was written."""
    array = zarr.open_array(sealed / name, mode="r+")
    array[3] = np.asarray(array[3]) + 1
    report = verify(sealed)
    assert [path.partition("/")[0] for path in _paths(report)] == [name]
    assert report.damaged.tolist() == list(range(21))


def test_a_changed_document_is_found(sealed: Path) -> None:
    """A changed attribute or array document is found, even where it stays valid Zarr."""
    for name, old, new in (
        ("image/zarr.json", "surface reflectance", "surface brightness"),
        ("manifest/zarr.json", '"bytes": 1', '"bytes": 2'),
        ("zarr.json", '"sum": "', '"sum": "1'),
        ("zarr.json", '"node_type": "group"', '"node_type":  "group"'),
    ):
        file = sealed / name
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))
        assert name in _paths(verify(sealed)), name
        file.write_text(text)
    assert verify(sealed).ok


def test_without_a_manifest_the_shards_are_checked_by_their_own_sums(sealed: Path) -> None:
    """A lost manifest is reported, hits no sample by itself, and does not blind the check of chunks."""
    (sealed / "manifest" / "zarr.json").unlink()
    report = verify(sealed)
    assert _paths(report) == ["manifest/zarr.json"]
    assert len(report.damaged) == 0
    data = bytearray((sealed / IMAGE_0).read_bytes())
    data[20] ^= 1
    (sealed / IMAGE_0).write_bytes(data)
    assert verify(sealed).damaged.tolist() == [0]


def test_the_error_names_files_samples_and_remedy(sealed: Path) -> None:
    """raise_if_damaged gives one paragraph with exit code 5."""
    (sealed / IMAGE_0).unlink()
    with pytest.raises(StoreDamagedError, match=r"1 files, 4 of 21 samples.*0–3.*Restore") as error:
        verify(sealed).raise_if_damaged()
    assert error.value.exit_code == 5


def test_a_store_that_is_not_sealed_is_said_so(tmp_path: Path, make_spec: MakeSpec) -> None:
    """An interrupted store is not called damaged pixels, but it does not pass."""
    create(tmp_path / "store.zarr", make_spec())
    report = verify(tmp_path / "store.zarr")
    assert "not sealed" in report.findings[0].problem
    assert len(report.damaged) == 0


def test_what_is_no_store_is_refused(tmp_path: Path, sealed: Path) -> None:
    """A missing folder, a folder without a store and a newer schema each have their own error."""
    with pytest.raises(InputError, match="not a folder"):
        verify(tmp_path / "nowhere")
    with pytest.raises(OutputConflictError, match="not a geofm store"):
        verify(tmp_path)
    root = json.loads((sealed / "zarr.json").read_text())
    root["attributes"]["geofm"]["schema_version"] = 99
    (sealed / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(OutputConflictError, match="schema 99"):
        verify(sealed)
