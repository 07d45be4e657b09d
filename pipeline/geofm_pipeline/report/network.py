"""What reaching the archive took: requests by stage, those repeated and reads given up, each with its causes."""

from __future__ import annotations

from dataclasses import dataclass

from geofm_pipeline.report.facts import Facts
from geofm_pipeline.report.folder import Folder


@dataclass(frozen=True, kw_only=True)
class NetworkLine:
    """One stage."""

    stage: str
    requests: int
    """Sent, redirects and repeats included."""
    received: float
    """Bytes."""
    repeats: str
    """Causes with their counts, in words; '' where nothing was repeated."""
    failures: str
    """Causes of reads that were given up, likewise."""
    notes: str
    """What else should be known."""


def network(folder: Folder) -> list[NetworkLine]:
    """A line per stage that sent requests or gave up reads; none for an archive on a local disk."""
    stages = folder.card.part("access").part("stages")
    lines = [_line(name, stages.part(name)) for name in stages.values]
    return [line for line in lines if line.requests or line.failures]


def network_said(folder: Folder) -> str:
    """How the archive was reached, in one sentence; '' where the card does not say."""
    facts = folder.card.part("access")
    rate = facts.number("requests_per_second")
    if rate is None:
        return ""
    route = {"https": "over https", "s3": "by S3", "auto": "by S3 in its region, else over https"}
    way = route.get(facts.text("route") or "", "over https")
    login = f"NASA's protected files {way}, " if facts.values.get("login") else ""
    changed = facts.items("services_changed")
    other = f" Addresses that were changed by --services: {', '.join(map(str, changed))}." if changed else ""
    sentence = f"{login}at most {rate:g} requests per second to one host from all workers together.{other}"
    return sentence[0].upper() + sentence[1:]


def _line(stage: str, facts: Facts) -> NetworkLine:
    return NetworkLine(
        stage=stage,
        requests=facts.count("requests") or 0,
        received=facts.number("bytes_received") or 0.0,
        repeats=_causes(facts.counts("retries")),
        failures=_causes(facts.counts("failures")),
        notes=_causes(facts.counts("notes")),
    )


def _causes(counts: dict[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{count:,} × {cause}" for cause, count in ordered)
