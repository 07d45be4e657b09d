"""The design: every number that decides which units, which dates and with what probability."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from geofm_sampling.seasons import check_years
from geofm_sampling.unit import cells_per_side

MAX_TIMESTEPS = 64
"""Products of 64 clear shares stay far above the smallest float64."""

ALLOCATIONS = ("power", "proportional", "equal", "neyman")
DRAWS = ("pivotal", "local", "systematic", "random", "pareto")


@dataclass(frozen=True, kw_only=True)
class Design:
    """What was asked for; two runs with equal designs and frames draw equal samples."""

    samples: int = 1024
    """Samples wanted, N."""
    years: tuple[int, ...]
    """Calendar years (UTC), ascending; no date outside them is used."""
    chip_size: int = 256
    """Edge of a chip in pixels of 30 m."""
    timesteps: int = 4
    """Dates per sample, T."""
    min_gap: int = 10
    """Least number of days between consecutive dates, ≥ 1."""
    max_gap: int = 180
    """Largest number of days between consecutive dates."""
    min_clear: float = 0.8
    """Least share of a chip's pixels that must be clear at every date, above 0."""
    allocation: str = "power"
    """power: n_h ∝ N_h^power; proportional; equal; neyman: n_h ∝ N_h · S_h, S_h the spread of descriptors."""
    power: float = 0.5
    """Exponent of the power allocation: 1 proportional, 0 equal."""
    spread: bool = True
    """Multiply the power allocation by S_h in phase 2; needs information."""
    cost_aware: bool = False
    """Divide the allocation by the root of a stratum's looks per observable unit; works against cloudy places."""
    floor: int = 10
    """Samples every stratum should get; lowered, and said so, where it would take more than half of all samples."""
    seed: int = 0
    """Seed of all random numbers."""
    heldout: float = 0.0
    """Share of ground blocks kept out for evaluation, p_b; 0 for none."""
    heldout_samples: int = 0
    """Samples wanted from the held-out blocks, besides `samples`."""
    block_km: float = 100.0
    """Edge of a split block in kilometres."""
    buffer_km: float = 5.0
    """Least distance in kilometres between the footprints of a training and a held-out chip."""
    information: bool = False
    """Whether phase 2 knows entropy, near-duplicates and novelty of the observable units."""
    entropy: float = 0.0
    """Exponent ε of spectral entropy in the size of a unit."""
    novelty: float = 1.0
    """Exponent γ of novelty in the size of a unit."""
    draw: str = "local"
    """How phase 2 draws: local (local pivotal method, apart in descriptors and place), pivotal (along the curve),
    systematic, random or pareto (approximate)."""
    joint_dates: bool = False
    """Units of a tile choose dates together, so that they share granules; each unit's p_dates stays the same."""
    first_phase: float = 2.0
    """First-phase units per sample wanted."""
    master_factor: int = 16
    """Length of a stratum's master draw per first-phase unit."""
    master_least: int = 65_536
    """Length below which a stratum's master draw is never cut."""

    def __post_init__(self) -> None:
        """Check every field once.

        Raises
        ------
        ValueError
            Naming the first field that cannot be right.
        """
        cells_per_side(self.chip_size)
        check_years(self.years)
        for field, good, rule in (
            ("samples", self.samples >= 1, "at least 1"),
            ("timesteps", 1 <= self.timesteps <= MAX_TIMESTEPS, f"1 to {MAX_TIMESTEPS}"),
            ("min_gap", self.min_gap >= 1, "at least 1 day, so that a sample never holds one day twice"),
            ("max_gap", self.min_gap <= self.max_gap <= 3660, f"min_gap ({self.min_gap}) to 3660 days"),
            ("min_clear", 0.0 < self.min_clear <= 1.0, "above 0 and at most 1"),
            ("power", 0.0 <= self.power <= 1.0, "0 (equal) to 1 (proportional)"),
            ("floor", self.floor >= 0, "at least 0"),
            ("allocation", self.allocation in ALLOCATIONS, f"one of {', '.join(ALLOCATIONS)}"),
            ("heldout", 0.0 <= self.heldout <= 0.5, "0 to 0.5"),
            ("heldout_samples", self.heldout_samples >= 0, "at least 0"),
            ("block_km", 1.0 <= self.block_km <= 2000.0, "1 to 2000 km"),
            ("buffer_km", 0.0 <= self.buffer_km <= 500.0, "0 to 500 km"),
            ("entropy", 0.0 <= self.entropy <= 4.0, "0 to 4"),
            ("novelty", 0.0 <= self.novelty <= 4.0, "0 to 4"),
            ("draw", self.draw in DRAWS, f"one of {', '.join(DRAWS)}"),
            ("first_phase", self.first_phase >= 1.0, "at least 1"),
            ("master_factor", self.master_factor >= 1, "at least 1"),
            ("master_least", self.master_least >= 1, "at least 1"),
        ):
            if not good:
                raise ValueError(f"{field} is {getattr(self, field)}, must be {rule}")

    @property
    def reach(self) -> int:
        """Days after the anchor season within which the last date must lie: (T − 1) · max_gap."""
        return (self.timesteps - 1) * self.max_gap

    def to_json(self) -> str:
        """Canonical JSON, sorted keys."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Design:
        """Inverse of :meth:`to_json`."""
        values = json.loads(text)
        return cls(**{**values, "years": tuple(values["years"])})

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()
