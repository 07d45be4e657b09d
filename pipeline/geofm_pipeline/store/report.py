"""What a verification found: damaged files and the samples they hit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.errors import StoreDamagedError
from geofm_pipeline.progress import human_bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class Finding:
    """One file that is wrong."""

    path: str
    """Path inside the store."""
    problem: str
    samples: NDArray[np.int64]
    """Global indices of the samples it hits, ascending; empty when only the side-car is damaged."""
    units: NDArray[np.uint64]
    """Their unit ids; empty when the `unit` array itself is damaged."""

    def __str__(self) -> str:
        hit = f"; hits {len(self.samples)} samples: {_ranges(self.samples)}" if len(self.samples) else ""
        names = ", ".join(str(unit) for unit in self.units[:8])
        more = ", …" if len(self.units) > 8 else ""
        return f"{self.path}: {self.problem}{hit}{f' (units {names}{more})' if len(self.units) else ''}"


@dataclass(frozen=True, kw_only=True, eq=False)
class VerifyReport:
    """What was checked and what was found."""

    path: Path
    deep: bool
    """Whether the shards were read; otherwise only their sizes were compared."""
    samples: int
    files: int
    """Files that belong to the store."""
    bytes: int
    """Their size as the manifest has it."""
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def damaged(self) -> NDArray[np.int64]:
        """Indices of all samples that are hit, ascending."""
        return np.unique(np.concatenate([np.empty(0, np.int64), *(finding.samples for finding in self.findings)]))

    def __str__(self) -> str:
        """One sentence where all is well, else the findings and the remedy in one paragraph."""
        if self.ok:
            checked = "every byte is as written" if self.deep else "every shard has the size that was written"
            return f"{checked}: {self.samples:,} samples, {self.files:,} files, {human_bytes(self.bytes)}"
        shown = "; ".join(str(finding) for finding in self.findings[:5])
        more = f"; and {len(self.findings) - 5} more" if len(self.findings) > 5 else ""
        return (
            f"{self.path} is damaged in {len(self.findings)} files, {len(self.damaged)} of {self.samples} samples "
            f"are hit: {shown}{more}. Restore these files from a copy, or remove {self.path} and run the same command "
            "again: it gives the same bytes"
        )

    def raise_if_damaged(self) -> None:
        """Raise StoreDamagedError naming the findings, if there are any."""
        if not self.ok:
            raise StoreDamagedError(str(self))


def combined(reports: Sequence[VerifyReport]) -> VerifyReport:
    """One report of the stores of a dataset, in order of wave.

    Sample indices count on from store to store: they are the rows of samples.parquet.
    """
    if len(reports) == 1:
        return reports[0]
    before = np.cumsum([0, *(report.samples for report in reports)])
    findings = [
        replace(finding, path=f"{report.path.name}/{finding.path}", samples=finding.samples + start)
        for report, start in zip(reports, before, strict=False)
        for finding in report.findings
    ]
    return VerifyReport(
        path=reports[0].path.parent,
        deep=all(report.deep for report in reports),
        samples=int(before[-1]),
        files=sum(report.files for report in reports),
        bytes=sum(report.bytes for report in reports),
        findings=tuple(findings),
    )


def _ranges(indices: NDArray[np.int64]) -> str:
    """`0–63, 70, 80–82`, at most six pieces."""
    pieces = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
    shown = [f"{p[0]}–{p[-1]}" if len(p) > 1 else str(p[0]) for p in pieces[:6]]
    return ", ".join(shown) + (", …" if len(pieces) > 6 else "")
