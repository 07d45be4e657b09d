"""Finds every byte of a sealed store that is not what was written, and says which samples it hits.

The chain of evidence: the root document carries its own SHA-256 and the checksum of the manifest's document; that
one has size and SHA-256 of every small file; the manifest arrays have size and CRC-32C of every shard and the
CRC-32C of every chunk, which tells the samples of a damaged shard apart. Cost: one sequential read of the store when
`deep`, one stat per shard otherwise.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from geofm_pipeline.errors import InputError
from geofm_pipeline.store.checks import Manifest, Problem, ShardJob, shard_job, small_file_problem
from geofm_pipeline.store.files import file_size
from geofm_pipeline.store.layout import (
    KEY,
    MANIFEST,
    ROOT,
    ArrayLayout,
    JsonObject,
    fmask_layout,
    image_layout,
    manifest_layouts,
    row_layouts,
)
from geofm_pipeline.store.report import Finding, VerifyReport
from geofm_pipeline.store.skeleton import read_root, spec_of
from geofm_pipeline.store.spec import StoreSpec

Progress = Callable[[int, int], None]
"""Called with (bytes read, bytes to read) after each shard, from one thread."""


def verify(path: Path, *, deep: bool = True, progress: Progress | None = None, threads: int = 4) -> VerifyReport:
    """Check a sealed store.

    Parameters
    ----------
    deep : read every byte; otherwise only names and sizes of the shards (metadata is always read)
    progress : called after each shard

    Raises
    ------
    InputError
        When `path` is no folder.
    OutputConflictError
        When it is no geofm store, or one of a newer schema.
    StoreDamagedError
        When the root document is so damaged that the store's layout is unknown.
    """
    if not path.is_dir():
        raise InputError(f"{path} is not a folder: give the path of a store, such as OUT/store.zarr")
    attributes = read_root(path)
    spec = spec_of(attributes)
    if not attributes.get("complete"):
        unsealed = Problem(path=ROOT, problem="the store is not sealed: run the command that writes it again")
        return _report(path, spec, deep, [unsealed])
    return _Check(path=path, spec=spec, attributes=attributes, deep=deep, threads=threads).run(progress)


class _Check:
    """One verification; collects problems."""

    def __init__(self, *, path: Path, spec: StoreSpec, attributes: JsonObject, deep: bool, threads: int) -> None:
        self.path, self.spec, self.attributes, self.deep, self.threads = path, spec, attributes, deep, threads
        self.problems: list[Problem] = []
        self.sizes: dict[str, int] = {}

    def run(self, progress: Progress | None) -> VerifyReport:
        self._root()
        small = self._manifest_files()
        self.problems += self._small_files(small)
        self._shards(progress)
        self.problems += self._foreign()
        intact = {p.path.partition("/")[0] for p in self.problems}.isdisjoint({"unit", ROOT})
        return _report(self.path, self.spec, self.deep, self.problems, sizes=self.sizes, with_units=intact)

    def _root(self) -> None:
        data = (self.path / ROOT).read_bytes()
        self.sizes[ROOT] = len(data)
        digest = str(self.attributes.get("digest")).encode()
        if hashlib.sha256(data.replace(digest, b"")).hexdigest().encode() != digest:
            everything = (range(self.spec.n),)
            self.problems.append(Problem(path=ROOT, problem="the root document was changed", rows=everything))

    def _manifest_files(self) -> Mapping[str, Mapping[str, object]]:
        """Size and checksum of every small file, {} when that list itself is damaged."""
        name = f"{MANIFEST}/{ROOT}"
        guard = self.attributes.get("manifest")
        problem = small_file_problem(self.path / name, guard if isinstance(guard, dict) else {})
        self.sizes[name] = file_size(self.path / name)
        if problem:
            self.problems.append(Problem(path=name, problem=f"{problem}; metadata arrays cannot be checked"))
            return {}
        document = json.loads((self.path / name).read_bytes())
        files: Mapping[str, Mapping[str, object]] = document["attributes"][KEY]["files"]
        return files

    def _small_files(self, files: Mapping[str, Mapping[str, object]]) -> Iterator[Problem]:
        rows = _rows_of_small_files(self.spec)
        for name, facts in files.items():
            self.sizes[name] = int(str(facts["bytes"]))
            problem = small_file_problem(self.path / name, facts)
            if problem:
                yield Problem(path=name, problem=problem, rows=(rows.get(name, range(0)),))

    def _shards(self, progress: Progress | None) -> None:
        jobs = [*self._shard_jobs(image_layout(self.spec)), *self._shard_jobs(fmask_layout(self.spec))]
        total, done = sum(job.size for job in jobs), 0
        self.sizes.update({job.name: job.size for job in jobs if job.size})
        with ThreadPoolExecutor(self.threads) as pool:
            problems = pool.map(lambda job: job.check(self.path, deep=self.deep), jobs)
            for job, problem in zip(jobs, problems, strict=True):
                done += job.size
                self.problems += [problem] if problem else []
                if progress is not None:
                    progress(done, total)

    def _shard_jobs(self, layout: ArrayLayout) -> list[ShardJob]:
        crcs = self._manifest_array(f"{layout.path}_crc32c")
        manifest = Manifest(
            shards=self._manifest_array(f"{layout.path}_shards"),
            places=self._manifest_array(f"{layout.path}_index"),
            crcs=crcs.astype(np.uint32) if crcs is not None else None,
        )
        return [shard_job(self.path, self.spec, layout, shard, manifest) for shard in range(self.spec.shards)]

    def _manifest_array(self, name: str) -> NDArray[np.uint64] | None:
        """A manifest array, None when one of its files is damaged."""
        folder = f"{MANIFEST}/{name}"
        if any(problem.path.startswith((folder, f"{MANIFEST}/{ROOT}", ROOT)) for problem in self.problems):
            return None
        return np.asarray(zarr.open_array(self.path / folder, mode="r", zarr_format=3)[...], dtype=np.uint64)

    def _foreign(self) -> Iterator[Problem]:
        known = {*self.sizes, *(problem.path for problem in self.problems)}
        if f"{MANIFEST}/{ROOT}" in {problem.path for problem in self.problems}:
            known |= _all_small_files(self.spec)
        shards = {
            layout.key(shard): self.spec.shard_rows(shard)
            for layout in (image_layout(self.spec), fmask_layout(self.spec))
            for shard in range(self.spec.shards)
        }
        for folder, _, names in os.walk(self.path):
            for file in names:
                name = (Path(folder) / file).relative_to(self.path).as_posix()
                if name not in known:
                    rows = shards.get(name, range(0))
                    yield Problem(path=name, problem="does not belong to the store", rows=(rows,))


def _rows_of_small_files(spec: StoreSpec) -> dict[str, range]:
    """Samples that a damaged small file hits: its rows, or all for an array's document; none for the manifest's."""
    rows = {f"{name}/{ROOT}": range(spec.n) for name in ("image", "fmask")}
    for layout in row_layouts(spec):
        rows[f"{layout.path}/{ROOT}"] = range(spec.n)
        for chunk in range(layout.chunks):
            rows[layout.key(chunk)] = range(chunk * layout.chunk[0], min(spec.n, (chunk + 1) * layout.chunk[0]))
    return rows


def _all_small_files(spec: StoreSpec) -> set[str]:
    layouts = manifest_layouts(spec)
    names = {layout.key(chunk) for layout in layouts for chunk in range(layout.chunks)}
    return {*_rows_of_small_files(spec), *names, *(f"{layout.path}/{ROOT}" for layout in layouts)}


def _report(
    path: Path,
    spec: StoreSpec,
    deep: bool,
    problems: Iterable[Problem],
    *,
    sizes: Mapping[str, int] | None = None,
    with_units: bool = False,
) -> VerifyReport:
    problems, sizes = list(problems), sizes or {}
    units = _units(path) if with_units and problems else None
    return VerifyReport(
        path=path,
        deep=deep,
        samples=spec.n,
        files=len(sizes),
        bytes=sum(sizes.values()),
        findings=tuple(_finding(problem, units) for problem in problems),
    )


def _units(path: Path) -> NDArray[np.uint64]:
    return np.asarray(zarr.open_array(path / "unit", mode="r", zarr_format=3)[...], dtype=np.uint64)


def _finding(problem: Problem, units: NDArray[np.uint64] | None) -> Finding:
    samples = np.concatenate([np.empty(0, np.int64), *(np.asarray(rows, dtype=np.int64) for rows in problem.rows)])
    named = units[samples] if units is not None else np.empty(0, np.uint64)
    return Finding(path=problem.path, problem=problem.problem, samples=samples, units=named)
