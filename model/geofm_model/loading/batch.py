"""What a loader gives: samples side by side, on the device, as they were stored.

Pixels stay int16 until they are on the device; normalising, cropping and masking happen there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geofm_model.sample import PixelRule


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """b samples of t dates, c bands and h × w pixels."""

    image: Tensor
    """int16 [b, t, c, h, w], reflectance × 10⁴, −9999 where missing."""
    fmask: Tensor
    """uint8 [b, t, h, w], the raw HLS quality byte, 255 where missing."""
    date: Tensor
    """int32 [b, t], days since 1970-01-01 (UTC), ascending."""
    lon: Tensor
    """float64 [b], degrees east."""
    lat: Tensor
    """float64 [b], degrees north."""
    stratum: Tensor
    """int32 [b]."""
    weight: Tensor
    """float32 [b], design weights: how many units of the region a sample stands for, whatever the loader draws by; 1
    where the dataset has no samples.parquet."""
    sample: Tensor
    """int64 [b], on the CPU: number among the loader's members; with `epoch` the key of what is random."""
    epoch: Tensor
    """int64 [b], on the CPU."""
    turn: Tensor
    """int64 [b], on the CPU: how often the sample came before in its epoch, above 0 in weighted epochs only."""
    rule: PixelRule
    """Which pixels may be used."""

    def __len__(self) -> int:
        return int(self.image.shape[0])

    def valid(self, rule: PixelRule | None = None) -> Tensor:
        """True where a pixel may be used, bool [b, t, h, w], by the stores' rule or another one."""
        return self.rule_on(self.image, self.fmask, rule)

    def rule_on(self, image: Tensor, fmask: Tensor, rule: PixelRule | None = None) -> Tensor:
        """As :meth:`valid`, of views of the pixels: int16 [b, t, c, h, w] and uint8 [b, t, h, w]."""
        rule = rule or self.rule
        complete = (image != rule.fill).all(dim=2)
        return complete & (fmask != rule.fmask_fill) & ((fmask & rule.byte) == 0)

    def to(self, device: torch.device | str) -> Batch:
        """The same samples on another device."""
        moved = {name: getattr(self, name).to(device) for name in _PIXELS}
        return Batch(**moved, sample=self.sample, epoch=self.epoch, turn=self.turn, rule=self.rule)


_PIXELS = ("image", "fmask", "date", "lon", "lat", "stratum", "weight")
"""What is on the device."""
