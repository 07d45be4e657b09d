"""What the root document of a store says, and what its files take on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import zarr

from geofm_pipeline.report.facts import Facts

_TRAINING = "train"


@dataclass(frozen=True, kw_only=True)
class BandSums:
    """Exact sums of raw counts over the valid pixels of one band."""

    count: int = 0
    total: int = 0
    squares: int = 0
    nonpositive: int = 0
    """Pixels with a value of 0 or below."""

    def __add__(self, other: BandSums) -> BandSums:
        return BandSums(**{name: value + getattr(other, name) for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class StoreFacts:
    """One store."""

    complete: bool
    """Whether it is sealed."""
    digest: str | None
    """SHA-256 that names its content, once sealed."""
    bytes: int
    """Size of all its files."""
    scale: float
    """Reflectance per count."""
    training: Mapping[str, BandSums]
    """Band → sums over the training split; empty before it is sealed."""


def store_facts(path: Path) -> StoreFacts:
    """Facts of the store in a folder.

    Raises
    ------
    ValueError
        When a sum is no whole number.
    """
    attributes = zarr.open_group(str(path), mode="r").attrs.get("geofm")
    facts = Facts(values=attributes if isinstance(attributes, Mapping) else {})
    bands = facts.part("statistics").part(_TRAINING).part("bands")
    return StoreFacts(
        complete=facts.values.get("complete") is True,
        digest=facts.text("digest"),
        bytes=sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        scale=facts.number("scale") or 1e-4,
        training={name: _sums(bands.part(name)) for name in bands.values},
    )


def _sums(band: Facts) -> BandSums:
    """Decimal strings, for at millions of chips Σx² exceeds what a float holds exactly."""
    count, total, squares, low = (band.text(name) or "0" for name in ("count", "sum", "sum_of_squares", "nonpositive"))
    return BandSums(count=int(count), total=int(total), squares=int(squares), nonpositive=int(low))


def training_sums(stores: Iterable[StoreFacts]) -> dict[str, BandSums]:
    """Band → sums over the training chips of several stores, bands in the order of the first."""
    found: dict[str, BandSums] = {}
    for store in stores:
        for name, sums in store.training.items():
            found[name] = found.get(name, BandSums()) + sums
    return found
