"""Kills, full disks, late and second writers: the store ends bit-identical, and nothing is left behind."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from geofm_pipeline.chips import Chip, ChipFailure, ChipRequest
from geofm_pipeline.errors import BlockReadError, OutputConflictError, ResourceError
from geofm_pipeline.store import StoreSpec, create, pending_groups, remove_leftovers, write_group, writer_lock
from geofm_pipeline.store.order import clusters
from geofm_pipeline.store.synthetic import (
    SyntheticReader,
    synthetic_chip,
    synthetic_requests,
    write_synthetic_store,
)
from geofm_sampling.unit import pack_units

MakeSpec = Callable[..., StoreSpec]
ReadTree = Callable[[Path], dict[str, bytes]]
_ENV = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}


def _kill_points(out: Path, points: int) -> list[dict[str, object]]:
    script = Path(__file__).with_name("kill_points.py")
    done = subprocess.run(
        [sys.executable, str(script), str(out), str(points)], env=_ENV, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _assert_survived(points: list[dict[str, object]]) -> None:
    for point in points:
        assert all(point[key] for key in ("killed", "killed_again", "resumed", "equal", "verified")), point


def test_a_kill_at_any_point_is_resumed_to_the_same_bytes(tmp_path: Path) -> None:
    """SIGKILL at system calls spread over the whole run: the second run gives the bytes of an undisturbed one."""
    points = _kill_points(tmp_path, 14)
    assert len(points) == 14
    _assert_survived(points)


@pytest.mark.heavy
def test_a_kill_at_every_point_is_resumed_to_the_same_bytes(tmp_path: Path) -> None:
    """The same at a few hundred points, about every system call that changes a file."""
    _assert_survived(_kill_points(tmp_path, 300))


_SCRIPT = """
import sys
from pathlib import Path
from geofm_pipeline.store import StoreSpec
from geofm_pipeline.store.synthetic import SyntheticReader, write_synthetic_store
spec = StoreSpec(n=160, timesteps=2, height=64, width=64, seed=1, shard_size=8, group_shards=2)
write_synthetic_store(Path(sys.argv[1]), spec, SyntheticReader(), threads=2)
"""


def test_a_process_killed_at_any_time_is_resumed(tmp_path: Path, read_tree: ReadTree) -> None:
    """A writer process killed from outside between two groups leaves a store that a second run completes."""
    command = [sys.executable, "-c", _SCRIPT]
    with subprocess.Popen([*command, str(tmp_path / "killed")]) as process:
        while process.poll() is None and len(list(tmp_path.glob("killed/parts/group-*.json"))) < 3:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("killed/parts/group-*.json"))) < 10
    for name in ("killed", "whole"):
        subprocess.run([*command, str(tmp_path / name)], check=True)
    assert read_tree(tmp_path / "killed" / "store.zarr") == read_tree(tmp_path / "whole" / "store.zarr")


def test_a_run_over_a_sealed_store_changes_nothing(tmp_path: Path, make_spec: MakeSpec, read_tree: ReadTree) -> None:
    """Repeating the whole run gives the same summary and touches no byte."""
    first = write_synthetic_store(tmp_path, make_spec(), SyntheticReader())
    before = read_tree(tmp_path / "store.zarr")
    stamp = (tmp_path / "store.zarr" / "zarr.json").stat().st_mtime_ns
    second = write_synthetic_store(tmp_path, make_spec(), SyntheticReader())
    assert (second.digest, second.sums, second.bytes) == (first.digest, first.sums, first.bytes)
    assert read_tree(tmp_path / "store.zarr") == before
    assert (tmp_path / "store.zarr" / "zarr.json").stat().st_mtime_ns == stamp


def test_threads_and_reading_order_do_not_reach_the_bytes(
    tmp_path: Path, make_spec: MakeSpec, read_tree: ReadTree
) -> None:
    """One thread or four, chips in row order or backwards: the same store."""
    spec = make_spec()
    write_synthetic_store(tmp_path / "a", spec, SyntheticReader())
    path, requests = tmp_path / "b" / "store.zarr", synthetic_requests(spec)
    create(path, spec)
    for group in reversed(range(spec.groups)):
        rows = spec.group_rows(group)
        backwards = requests[rows.start : rows.stop][::-1]
        write_group(path, spec, tmp_path / "b/parts", group, backwards, SyntheticReader(), threads=4)
    write_synthetic_store(tmp_path / "b", spec, SyntheticReader())
    assert read_tree(path) == read_tree(tmp_path / "a" / "store.zarr")


class _Recording(SyntheticReader):
    """Notes the units in the order in which it is asked for them."""

    units: tuple[int, ...] = ()

    def read(self, requests: Sequence[ChipRequest]) -> Iterator[Chip | ChipFailure]:
        self.units = tuple(request.unit for request in requests)
        return super().read(requests)


def test_a_group_is_read_and_stored_cluster_by_cluster(
    tmp_path: Path, make_spec: MakeSpec, read_tree: ReadTree
) -> None:
    """However its requests are given, a group is read one (tile, season) cluster after the other, and its chunks lie
    in their shards in that order without gaps; so no caller can change a byte."""
    spec = make_spec(n=8, group_shards=1, shard_size=8)
    tiles, seasons = ["11SKA", "10SFE", "10SFE", "11SKA"] * 2, [1, 1, 2, 1] * 2
    units = [
        int(
            pack_units(tile=t, chip_size=64, cell_row=np.array([9 - k]), cell_col=np.array([0]), year=2022, season=s)[0]
        )
        for k, (t, s) in enumerate(zip(tiles, seasons, strict=True))
    ]
    requests = [
        replace(request, chip=replace(request.chip, unit=unit))
        for request, unit in zip(synthetic_requests(spec), units, strict=True)
    ]
    trees = []
    for name, given in (("a", requests), ("b", requests[::-1]), ("c", requests[3:] + requests[:3])):
        path, reader = tmp_path / name / "store.zarr", _Recording()
        create(path, spec)
        result = write_group(path, spec, tmp_path / name / "parts", 0, given, reader, threads=3)
        trees.append(read_tree(path))
        assert sorted(reader.units) == sorted(units)
        keys = clusters(np.array(reader.units, dtype=np.uint64)).tolist()
        assert len(list(groupby(keys))) == len(set(keys)) == 3
        stored = np.argsort(result.image_index[:, 0])
        assert [units[row] for row in stored] == list(reader.units)
        places = result.image_index[stored]
        assert places[0, 0] == 0
        assert np.array_equal(places[1:, 0], places[:-1].sum(axis=1))
    assert trees[0] == trees[1] == trees[2]


def test_only_damaged_groups_are_redone(tmp_path: Path, make_spec: MakeSpec) -> None:
    """A group is pending when its part is missing or torn, or a shard is missing, short, or differs in content."""
    spec, parts = make_spec(), tmp_path / "parts"
    write_synthetic_store(tmp_path, spec, SyntheticReader())
    store = tmp_path / "store.zarr"
    assert pending_groups(store, spec, parts) == []
    shard = store / "image" / "c.2.0.0.0.0"
    data = shard.read_bytes()
    shard.write_bytes(data[:100] + b"!" + data[101:])
    assert pending_groups(store, spec, parts) == [1]
    assert pending_groups(store, spec, parts, deep=False) == []
    shard.write_bytes(data[:-1])
    assert pending_groups(store, spec, parts, deep=False) == [1]
    part = parts / "group-000002.json"
    part.write_text(part.read_text().replace("404", "405").replace('"units": [', '"units": [9, '))
    (parts / "group-000000.json").unlink()
    assert pending_groups(store, spec, parts, deep=False) == [0, 1, 2]


class _LateReader(SyntheticReader):
    """Reads, by default in vain, and while it does, somebody else does something."""

    def __init__(self, meanwhile: Callable[[], object], make: Callable[[ChipRequest], Chip] | None = None) -> None:
        super().__init__()
        self._meanwhile, self._answer = meanwhile, make

    def read(self, requests: Sequence[ChipRequest]) -> Iterator[Chip | ChipFailure]:
        gone = BlockReadError(granule="G", band="B02", cause="gone")
        for request in requests:
            yield self._answer(request) if self._answer else ChipFailure(unit=request.unit, error=gone)
        self._meanwhile()


def test_a_late_worker_changes_nothing(tmp_path: Path, make_spec: MakeSpec, read_tree: ReadTree) -> None:
    """A worker given up as lost that finishes after its successor, even with other results, leaves all as it is."""
    spec, path = make_spec(), tmp_path / "store.zarr"
    requests = synthetic_requests(spec)[:8]
    create(path, spec)

    def write(reader: SyntheticReader) -> object:
        return write_group(path, spec, tmp_path / "parts", 0, requests, reader)

    after: list[dict[str, bytes]] = []
    late = _LateReader(lambda: after.extend([write(SyntheticReader()) and read_tree(tmp_path)]))  # type: ignore[list-item]
    result = write(late)
    assert not result.tombstones  # type: ignore[attr-defined]
    assert read_tree(tmp_path) == after[0]
    write_synthetic_store(tmp_path, spec, SyntheticReader())
    (tmp_path / "parts" / "group-000000.json").unlink()
    with pytest.raises(OutputConflictError, match="sealed"):
        write(SyntheticReader())


def test_a_late_worker_whose_files_were_cleared_away_changes_nothing(
    tmp_path: Path, make_spec: MakeSpec, read_tree: ReadTree
) -> None:
    """A worker of a run that was given up, whose temporary files the next run removed, fails and puts nothing in."""
    spec, path = make_spec(), tmp_path / "store.zarr"
    create(path, spec)
    before = read_tree(path)
    late = _LateReader(lambda: remove_leftovers(tmp_path / "parts"), synthetic_chip)
    with pytest.raises(FileNotFoundError):
        write_group(path, spec, tmp_path / "parts", 0, synthetic_requests(spec)[:8], late)
    assert read_tree(path) == before
    assert not [file for file in (tmp_path / "parts").rglob("*") if file.is_file()]


def test_too_few_open_files_is_said_with_its_remedy(tmp_path: Path, make_spec: MakeSpec) -> None:
    """Where the limit of open files does not allow a group's shards, the error says which limit, nothing is left
    beside the store, and with more files the run goes on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geofm_pipeline.store.shards.allow_open_files", lambda: None)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 2, hard))
        try:
            with pytest.raises(ResourceError, match="ulimit -n"):
                write_synthetic_store(tmp_path, make_spec(n=32, group_shards=8), SyntheticReader())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not list(tmp_path.rglob("*.tmp"))
    write_synthetic_store(tmp_path, make_spec(n=32, group_shards=8), SyntheticReader())


def test_a_transient_fault_leaves_no_trace(tmp_path: Path, make_spec: MakeSpec, read_tree: ReadTree) -> None:
    """A transient fault is raised as it is, nothing of the group is committed, and the next try gives all."""
    spec, path = make_spec(), tmp_path / "store.zarr"
    create(path, spec)
    before = read_tree(tmp_path)
    unit = synthetic_requests(spec)[3].chip.unit
    fault = BlockReadError(granule="G", band="B02", cause="time-out", transient=True)
    with pytest.raises(BlockReadError, match="time-out"):
        write_synthetic_store(tmp_path, spec, SyntheticReader(faults={unit: fault}), threads=3)
    assert read_tree(tmp_path) == before
    write_synthetic_store(tmp_path, spec, SyntheticReader())


@pytest.mark.parametrize("after", [0, 1, 5, 9, 13, 17, 21, 25, 33, 34, 35, 37, 60, 100])
def test_a_full_disk_loses_nothing(
    tmp_path: Path, make_spec: MakeSpec, read_tree: ReadTree, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """ENOSPC anywhere is a ResourceError with a remedy; no temporary file stays, and the same command continues."""
    spec = make_spec()
    write_synthetic_store(tmp_path / "whole", spec, SyntheticReader())
    calls, real = 0, os.write

    def full(fd: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ResourceError, match="free space"):
        write_synthetic_store(tmp_path / "full", spec, SyntheticReader())
    monkeypatch.undo()
    assert not list((tmp_path / "full").rglob("*.tmp"))
    write_synthetic_store(tmp_path / "full", spec, SyntheticReader())
    assert read_tree(tmp_path / "full" / "store.zarr") == read_tree(tmp_path / "whole" / "store.zarr")


def test_leftovers_of_killed_writers_can_be_removed(tmp_path: Path) -> None:
    """Temporary files that a kill left beside the store go when the next run starts."""
    left = tmp_path / "tmp" / "c.0.1.abc.tmp"
    left.parent.mkdir()
    left.write_bytes(b"half a shard")
    remove_leftovers(tmp_path)
    assert not left.exists()


def test_another_plan_is_refused(tmp_path: Path, make_spec: MakeSpec) -> None:
    """A store of another spec is never touched; the message names both digests."""
    spec = make_spec()
    create(tmp_path / "store.zarr", spec)
    other = make_spec(provenance={"plan_digest": "zz", "response_digest": "bb"})
    with pytest.raises(OutputConflictError) as error:
        create(tmp_path / "store.zarr", other)
    for name in (spec.digest, other.digest, "plan_digest aa there, zz here"):
        assert name in str(error.value)


def test_something_else_at_the_place_is_refused(tmp_path: Path, make_spec: MakeSpec) -> None:
    """A folder that is no store, or a Zarr group of somebody else, is never written into."""
    (tmp_path / "photos").mkdir()
    with pytest.raises(OutputConflictError, match="not a geofm store"):
        create(tmp_path / "photos", make_spec())
    (tmp_path / "photos" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(OutputConflictError, match="not a geofm store"):
        create(tmp_path / "photos", make_spec())


def test_a_newer_schema_is_refused(sealed: Path, make_spec: MakeSpec) -> None:
    """A store of a newer schema is an OutputConflictError that says what to do."""
    root = sealed / "zarr.json"
    root.write_text(root.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(OutputConflictError, match="upgrade geofm"):
        create(sealed, make_spec())


def test_other_codec_versions_are_refused(sealed: Path, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose codecs would give other bytes does not write."""
    monkeypatch.setattr("geofm_pipeline.store.skeleton.codec_versions", lambda: {"numcodecs": "0.0"})
    with pytest.raises(OutputConflictError, match="codec versions"):
        create(sealed, make_spec())


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    """While one writer holds an output, another is told which process it is; afterwards it may go on."""
    target = tmp_path / "out"
    with writer_lock(target):
        with pytest.raises(OutputConflictError, match=f"process {os.getpid()} on"), writer_lock(target):
            pass
        assert [file.name for file in tmp_path.iterdir()] == ["out.lock"]
    with writer_lock(target):
        pass
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_killed_writer_is_taken_over(tmp_path: Path) -> None:
    """A lock whose process was killed on this host does not block the next run."""
    script = (
        "import sys, os, signal; from pathlib import Path; from geofm_pipeline.store import writer_lock\n"
        "with writer_lock(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "out")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "out.lock").read_text().split()[0] == socket.gethostname()
    with writer_lock(tmp_path / "out"):
        pass


def test_the_lock_of_another_host_is_respected(tmp_path: Path) -> None:
    """A process on another host cannot be seen from here, so its lock is an error that says how to lift it."""
    (tmp_path / "out.lock").write_text("elsewhere 77\n")
    with pytest.raises(OutputConflictError, match="process 77 on elsewhere"), writer_lock(tmp_path / "out"):
        pass
