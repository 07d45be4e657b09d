"""What every run in a dataset folder has around its stages, whatever these do: a log, times, verification, facts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geofm_pipeline.card import Card
from geofm_pipeline.dataset import verify_dataset
from geofm_pipeline.errors import BlockReadError
from geofm_pipeline.progress import Progress
from geofm_pipeline.runlog import RunLog
from geofm_pipeline.store import StoreSpec, StoreSummary


@contextmanager
def logged(log: RunLog, progress: Progress, command: str) -> Iterator[None]:
    """Note in the log that a run starts, all that it says, and why it failed."""
    progress.heard = lambda message: log.write("said", message)
    log.write("start", command)
    try:
        yield
    except BaseException as error:  # Ctrl-C is an end worth noting, too
        # A block that cannot be read names granule, band and cause itself.
        log.write("failed", str(error) if isinstance(error, BlockReadError) else f"{type(error).__name__}: {error}")
        raise
    finally:
        progress.heard = None


@contextmanager
def timed(card: Card, log: RunLog, stage: str) -> Iterator[None]:
    """Note how long a stage took, however it ended."""
    start = time.monotonic()
    try:
        yield
    finally:
        seconds = time.monotonic() - start
        card.took(stage, seconds)
        log.write("stage", stage, seconds=seconds)


def verify(root: Path, card: Card, progress: Progress) -> None:
    """Compare every byte of a dataset with what was written; raises when one differs."""
    report = verify_dataset(root)
    facts = {
        "ok": report.ok,
        "checked_files": report.files,
        "checked_bytes": report.bytes,
        "problems": [f"{finding.path}: {finding.problem}" for finding in report.findings],
    }
    card.set("verify", facts)
    progress.say(f"verify: {report}")
    report.raise_if_damaged()


def store_facts(spec: StoreSpec, summary: StoreSummary) -> dict[str, object]:
    """The section `store` of the card."""
    return {
        "samples": summary.samples,
        "shards": spec.shards,
        "bytes": summary.bytes,
        "digest": summary.digest,
        "tombstones": [{"unit": s.unit, "cause": f"{s.granule} {s.band}: {s.cause}"} for s in summary.tombstones],
        "bands": [_band_facts(name, at, summary) for at, name in enumerate(spec.bands)],
        "complete": True,
    }


def _band_facts(name: str, at: int, summary: StoreSummary) -> dict[str, object]:
    """Mean and standard deviation of reflectance from the exact integer sums of the training split."""
    sums = summary.sums.get(0)
    count = sums.count[at] if sums else 0
    if not sums or not count:
        return {"name": name, "mean": None, "std": None, "share_nonpositive": None, "count": 0}
    mean = sums.total[at] / count
    variance = max(0.0, (sums.squares[at] * count - sums.total[at] ** 2) / count**2)
    return {
        "name": name,
        "mean": round(mean * 1e-4, 6),
        "std": round(variance**0.5 * 1e-4, 6),
        "share_nonpositive": round(sums.nonpositive[at] / count, 6),
        "count": int(count),
    }
