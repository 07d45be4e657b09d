"""Masked pre-training of one batch: views, masks, predictions, and errors over valid pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geofm_model.loading.batch import Batch
from geofm_model.models import (
    Errors,
    Grid,
    MaskedAutoencoder,
    MaskPlan,
    Metadata,
    Patching,
    chosen,
    hidden_errors,
    patches,
    plan_mask,
)
from geofm_model.models.tokens import Masking
from geofm_model.streams import uniform
from geofm_model.views import Flip, central_views, dates_of, normalised, plan_views, view_of

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
    ratio: float = 0.75
    """Share of tokens that are hidden."""
    masking: Masking = "random"
    normalise: bool = False
    """Targets are normalised patch by patch."""
    metadata_drop: float = 0.1
    """Chance that a sample's date and place are withheld, where the network takes them."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A batch as the network takes it, on its device."""

    vectors: Tensor
    """[b, n, numbers] normalised patches, 0 where a pixel is not valid."""
    valid: Tensor
    """bool [b, n, numbers]."""
    grid: Grid
    plan: MaskPlan
    metadata: Metadata | None


def prepare(
    batch: Batch,
    task: MaskedTask,
    patching: Patching,
    mean: Tensor,
    std: Tensor,
    *,
    repeat: int = 0,
    train: bool = True,
    metadata: bool = False,
) -> Prepared:
    """Views, masks and numbers of a batch; a pure function of seed, epochs, samples and `repeat`.

    Parameters
    ----------
    mean, std : float32 [c] on the batch's device
    train : False looks at the middle of each sample, with a mask of its own for ever, and withholds nothing
    metadata : dates and places are wanted, too
    """
    shape = (batch.image.shape[1], *batch.image.shape[-2:])
    looks = batch.turn * REPEATS + repeat
    if train:
        views = plan_views(
            batch.sample, batch.epoch, shape=shape, seed=task.seed, size=task.size, dates=task.dates, flip=task.flip,
            repeat=looks,
        )  # fmt: skip
    else:
        views = central_views(len(batch), shape=shape, size=task.size, dates=task.dates)
    image = view_of(batch.image, views)
    valid = batch.rule_on(image, view_of(batch.fmask, views))
    grid = patching.grid((image.shape[1], task.size, task.size))
    vectors = patches(normalised(image, valid, mean, std), patching)
    whole = patches(valid.unsqueeze(2).expand_as(image), patching)
    plan = plan_mask(
        batch.sample,
        batch.epoch if train else torch.zeros_like(batch.epoch),
        grid=grid,
        ratio=task.ratio,
        seed=task.seed,
        masking=task.masking,
        repeat=looks if train else 0,
        usable=whole.any(dim=-1),
        device=image.device,
    )
    when = _metadata(batch, dates_of(batch.date, views), task, looks, train) if metadata else None
    return Prepared(vectors=vectors, valid=whole, grid=grid, plan=plan, metadata=when)


def errors_of(model: MaskedAutoencoder, prepared: Prepared, task: MaskedTask, weights: Tensor | None = None) -> Errors:
    """Errors of the hidden pixels of a batch; `weights` [b] of its samples."""
    predicted = model(prepared.vectors, prepared.grid, prepared.plan, prepared.metadata)
    target, valid = (chosen(part, prepared.plan.hidden) for part in (prepared.vectors, prepared.valid))
    return hidden_errors(predicted, target, valid, weights=weights, normalise=task.normalise)


def _metadata(batch: Batch, days: Tensor, task: MaskedTask, looks: Tensor, train: bool) -> Metadata:
    year, day = year_and_day(days)
    kept = torch.ones(len(batch), dtype=torch.bool)
    if train:
        drawn = uniform(task.seed, "metadata", batch.epoch.numpy(), batch.sample.numpy(), looks.numpy())
        kept = torch.from_numpy(drawn >= task.metadata_drop)
    return Metadata(year=year, day=day, lat=batch.lat, lon=batch.lon, kept=kept.to(days.device))


def year_and_day(days: Tensor) -> tuple[Tensor, Tensor]:
    """Days since 1970-01-01 → calendar year, and day of the year from 0; both int64, Gregorian.

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
