"""What a store is before its first pixel: sizes, codecs profile, mask rule and provenance, with one digest.

Everything that decides a byte of the store is in :class:`StoreSpec`, in the rows of the response, in the pixels, or
in the codec versions. Two runs that agree on those four write the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from geofm_pipeline.errors import InputError
from geofm_pipeline.hls.bands import BANDS
from geofm_pipeline.hls.fmask import DEFAULT_RULE, MaskRule

SCHEMA_VERSION = 1
"""Raised when a reader of the former version could misread a store; keys may be added without raising it."""
SHARD_SIZE = 64
"""K: samples in one shard (one file)."""
GROUP_SHARDS = 16
"""Shards in one write group, the unit of work and of resuming: 1,024 samples."""

Profile = Literal["zstd", "local"]
SPLITS: dict[str, int] = {"train": 0, "heldout": 1, "test": 2}
"""Values of the `split` array; -1 marks a tombstone."""
TOMBSTONE = -1
"""Split of a row whose pixels could never be read."""


@dataclass(frozen=True, kw_only=True)
class StoreSpec:
    """Shape, layout and provenance of one store; validated when made."""

    n: int
    """Samples N, tombstones included; at least 1."""
    timesteps: int
    """Dates T of one sample."""
    height: int
    """Rows H of a chip in pixels."""
    width: int
    """Columns W of a chip in pixels."""
    seed: int
    """Seed of the order (recorded; the order itself comes with the rows)."""
    bands: tuple[str, ...] = BANDS
    """Canonical names of axis B, in order."""
    shard_size: int = SHARD_SIZE
    """Samples K in one shard."""
    group_shards: int = GROUP_SHARDS
    """Shards in one write group."""
    profile: Profile = "zstd"
    """`zstd`: smallest, for archives and networks; `local`: lz4, decodes faster, for fast local disks."""
    wave: int = 1
    """Which extension of the sample this store holds, from 1."""
    mask_rule: MaskRule = DEFAULT_RULE
    """Fmask bits that make a pixel unusable in statistics and for readers."""
    min_clear: float = 0.8
    """Share of valid pixels per chip and date that screening asked for; recorded, never enforced here."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Catalogue, product versions, `plan_digest`, `response_digest` and what else fixes the content."""

    def __post_init__(self) -> None:
        sizes = ("n", "timesteps", "height", "width", "shard_size", "group_shards", "wave")
        bad = {name: getattr(self, name) for name in sizes if getattr(self, name) < 1}
        if bad or not self.bands:
            raise InputError(f"a store needs sizes of at least 1 and at least one band, got {bad or self.bands!r}")
        if self.profile not in ("zstd", "local"):
            raise InputError(f"store profile {self.profile!r} is unknown: choose 'zstd' or 'local'")
        if self.n >= 2**31 or self.height * self.width > 2**22:
            raise InputError(
                f"{self.n} samples of {self.height} × {self.width} px exceed a store's limits (2³¹ samples, 2²² px): "
                "split the request"
            )

    @property
    def shards(self) -> int:
        """Number of shards; the last may hold fewer than K samples."""
        return -(-self.n // self.shard_size)

    @property
    def groups(self) -> int:
        """Number of write groups."""
        return -(-self.shards // self.group_shards)

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        """Shape of one image, [T, B, H, W]."""
        return (self.timesteps, len(self.bands), self.height, self.width)

    @property
    def fmask_shape(self) -> tuple[int, int, int]:
        """Shape of one mask, [T, H, W]."""
        return (self.timesteps, self.height, self.width)

    @property
    def digest(self) -> str:
        """SHA-256 over every field, the name by which a resumed run knows its own store."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        fields["mask_rule"] = list(self.mask_rule.bits)
        fields["bands"] = list(self.bands)
        fields["provenance"] = dict(self.provenance)
        text = json.dumps({"schema": SCHEMA_VERSION, **fields}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def group_shard_range(self, group: int) -> range:
        """Shards of a write group."""
        if not 0 <= group < self.groups:
            raise IndexError(f"group {group} of a store with {self.groups} groups")
        return range(group * self.group_shards, min(self.shards, (group + 1) * self.group_shards))

    def shard_rows(self, shard: int) -> range:
        """Global sample indices of a shard."""
        return range(shard * self.shard_size, min(self.n, (shard + 1) * self.shard_size))

    def group_rows(self, group: int) -> range:
        """Global sample indices of a write group."""
        shards = self.group_shard_range(group)
        return range(shards.start * self.shard_size, min(self.n, shards.stop * self.shard_size))
