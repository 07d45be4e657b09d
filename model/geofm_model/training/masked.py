"""Masked pre-training of one batch: views, masks, predictions, and errors over valid pixels.

Everything is on the batch's device, and the host never waits for it.

What is random is a pure function of the run's one seed, a purpose, and a sample's epoch, number and look at it. The
purposes are `crop rows`, `crop columns`, `flip rows`, `flip columns` and `dates` (what is looked at), `mask tokens`,
`mask columns`, `mask dates` and `mask bands` (what is hidden), and `metadata` (what is withheld). No two of them share
numbers, nor do they with the loader's order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor, nn

from geofm_model.loading.batch import Batch
from geofm_model.models import (
    Errors,
    Grid,
    Masking,
    MaskPlan,
    Metadata,
    Patching,
    chosen,
    hidden_errors,
    patches,
    plan_bands,
    plan_mask,
)
from geofm_model.streams import uniform
from geofm_model.transfer import sent
from geofm_model.views import Flip, Views, central_views, dates_of, normalised, plan_views, view_of

REPEATS = 1024
"""Looks at a sample each time it comes, at most: a weighted epoch's second turn of it has views of its own."""


@dataclass(frozen=True, kw_only=True)
class MaskedTask:
    """What is asked of the network."""

    size: int = 224
    """Edge of a view in pixels."""
    dates: int | None = None
    """Dates of a view; None takes all of a sample's."""
    flip: Flip = "columns"
    """What of a view is turned round by chance: its columns (west and east), its rows as well (both), or nothing."""
    ratio: float = 0.75
    """Share of tokens that are hidden; 0 hides none, where bands are dropped."""
    masking: Masking = "random"
    """Which tokens are hidden together."""
    drop_bands: int = 0
    """Bands that are withheld from every token of a sample, and predicted: what is asked is the dropped bands of seen
    tokens and all bands of hidden ones."""
    normalise: bool = False
    """Targets are normalised patch by patch."""
    metadata_drop: float = 0.1
    """Chance that a sample's date and place are withheld, where the network takes them."""

    def __post_init__(self) -> None:
        if not (0 < self.ratio < 1 or (self.ratio == 0 and self.drop_bands > 0)):
            raise ValueError(
                f"a mask ratio of {self.ratio} with {self.drop_bands} bands dropped leaves nothing to see or to "
                "predict: choose one between 0 and 1, or 0 and bands to drop"
            )
        if self.drop_bands < 0 or not 0 <= self.metadata_drop <= 1:
            raise ValueError(
                f"bands dropped are at least 0 and chances lie between 0 and 1, got {self.drop_bands} and "
                f"{self.metadata_drop}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A batch as the network takes it, on its device."""

    vectors: Float[Tensor, "b n numbers"]
    """Normalised patches, 0 where a pixel is not valid."""
    valid: Bool[Tensor, "b n numbers"]
    """True where a pixel may be used."""
    grid: Grid
    plan: MaskPlan
    metadata: Metadata | None

    def counted(self) -> Float[Tensor, " b"]:
        """Numbers of each sample that are asked and valid: the `weight` of its errors, before the network runs."""
        valid, asked = chosen(self.valid, self.plan.predicted), self.plan.asked(self.valid.shape[2])
        return (valid if asked is None else valid & asked).sum(dim=(1, 2)).to(torch.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Preparation:
    """Makes batches what the network takes: views, masks and numbers; one for a run."""

    task: MaskedTask
    patching: Patching
    mean: Float[Tensor, " c"]
    """Of each band, in counts, on the device of the batches."""
    std: Float[Tensor, " c"]
    """The same."""
    seed: int
    """The run's."""
    metadata: bool = False
    """Dates and places are wanted, too."""

    def __post_init__(self) -> None:
        bands = self.patching.bands
        if not len(self.mean) == len(self.std) == bands > self.task.drop_bands:
            raise ValueError(
                f"patches of {bands} bands need as many means and standard deviations, and fewer bands to drop; got "
                f"{len(self.mean)}, {len(self.std)} and {self.task.drop_bands}"
            )

    def __call__(self, batch: Batch, *, repeat: int = 0, train: bool = True) -> Prepared:
        """A pure function of the seed, the samples, their epochs and turns, and `repeat`.

        Parameters
        ----------
        repeat : number of the look, where each batch is looked at more than once; below REPEATS
        train : False looks at the middle of each sample, with a mask of its own for ever, and withholds nothing
        """
        if not 0 <= repeat < REPEATS:
            raise ValueError(f"look {repeat} at a sample has no random numbers of its own: choose 0 to {REPEATS - 1}")
        looks = batch.turn * REPEATS + repeat if train else torch.zeros_like(batch.turn)
        epoch = batch.epoch if train else torch.zeros_like(batch.epoch)
        views = self._views(batch, looks, train)
        image = view_of(batch.image, views)
        valid = batch.rule_on(image, view_of(batch.fmask, views))
        return Prepared(
            vectors=patches(normalised(image, valid, self.mean, self.std), self.patching),
            valid=patches(valid.unsqueeze(2).expand_as(image), self.patching),
            grid=self.patching.grid((image.shape[1], self.task.size, self.task.size)),
            plan=self._plan(batch.sample, epoch, looks, valid),
            metadata=self._metadata(batch, views, looks, train) if self.metadata else None,
        )

    def central(self, batch: Batch) -> Views:
        """What is looked at where nothing is trained."""
        return central_views(len(batch), shape=_shape(batch), size=self.task.size, dates=self.task.dates)

    def _views(self, batch: Batch, looks: Int64[Tensor, " b"], train: bool) -> Views:
        if not train:
            return self.central(batch)
        task = self.task
        return plan_views(
            batch.sample, batch.epoch, shape=_shape(batch), seed=self.seed, size=task.size, dates=task.dates,
            flip=task.flip, repeat=looks,
        )  # fmt: skip

    def _plan(
        self,
        sample: Int64[Tensor, " b"],
        epoch: Int64[Tensor, " b"],
        looks: Int64[Tensor, " b"],
        valid: Bool[Tensor, "b t h w"],
    ) -> MaskPlan:
        task, device = self.task, valid.device
        dropped = None
        if task.drop_bands:
            dropped = plan_bands(
                sample, epoch, bands=self.patching.bands, drop=task.drop_bands, seed=self.seed, repeat=looks,
                device=device,
            )  # fmt: skip
        return plan_mask(
            sample,
            epoch,
            grid=self.patching.grid((valid.shape[1], valid.shape[2], valid.shape[3])),
            ratio=task.ratio,
            seed=self.seed,
            masking=task.masking,
            repeat=looks,
            usable=usable_tokens(valid, self.patching),
            dropped=dropped,
            device=device,
        )

    def _metadata(self, batch: Batch, views: Views, looks: Int64[Tensor, " b"], train: bool) -> Metadata:
        year, day = year_and_day(dates_of(batch.date, views))
        drawn = uniform(self.seed, "metadata", batch.epoch.numpy(), batch.sample.numpy(), looks.numpy())
        kept = drawn >= (self.task.metadata_drop if train else 0.0)
        return Metadata(year=year, day=day, lat=batch.lat, lon=batch.lon, kept=sent(kept, year.device))


def _shape(batch: Batch) -> tuple[int, int, int]:
    """(t, h, w) of the samples."""
    _, t, _, h, w = batch.image.shape
    return t, h, w


def errors_of(
    model: nn.Module, prepared: Prepared, task: MaskedTask, weights: Float[Tensor, " b"] | None = None
) -> Errors:
    """Errors of what is asked of a batch, sample by sample.

    Parameters
    ----------
    model : a MaskedAutoencoder, or one wrapped for several processes
    weights : of the samples; None takes all as equal
    """
    predicted: Tensor = model(prepared.vectors, prepared.grid, prepared.plan, prepared.metadata)
    return _errors(predicted, prepared, task, weights)


def baseline_errors(prepared: Prepared, task: MaskedTask, weights: Float[Tensor, " b"] | None = None) -> Errors:
    """Errors of one who predicts 0 everywhere: skill is 1 − errors / baseline, of the same pixels.

    0 is the mean of each band. With `normalise` it is the true mean of each patch, which nobody is told: the baseline
    is about 1 for each number, and skill the share that is explained of what varies within patches.
    """
    return _errors(None, prepared, task, weights)


def _errors(
    predicted: Tensor | None, prepared: Prepared, task: MaskedTask, weights: Float[Tensor, " b"] | None
) -> Errors:
    target, valid = (chosen(part, prepared.plan.predicted) for part in (prepared.vectors, prepared.valid))
    if predicted is None:
        predicted = target.new_zeros(()).expand_as(target)
    asked = prepared.plan.asked(target.shape[2])
    return hidden_errors(predicted, target, valid, asked=asked, weights=weights, normalise=task.normalise)


def usable_tokens(valid: Bool[Tensor, "b t h w"], patching: Patching) -> Bool[Tensor, "b n"]:
    """True for tokens with any valid pixel."""
    return patches(valid.unsqueeze(2), replace(patching, bands=1)).any(dim=-1)


def year_and_day(days: Int[Tensor, "*axes"]) -> tuple[Int64[Tensor, "*axes"], Int64[Tensor, "*axes"]]:
    """Days since 1970-01-01 → calendar year, and day of the year from 0; Gregorian.

    By eras of 400 years (Hinnant, "chrono-Compatible Low-Level Date Algorithms"), years that begin in March inside.
    """
    shifted = days.to(torch.int64) + 719_468
    era = shifted.div(146_097, rounding_mode="floor")
    of_era = shifted - era * 146_097
    year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)  # from 1 March
    january = of_year >= 306
    civil = year + era * 400 + january.to(torch.int64)
    leap = ((civil % 4 == 0) & (civil % 100 != 0)) | (civil % 400 == 0)
    return civil, torch.where(january, of_year - 306, of_year + 59 + leap.to(torch.int64))
