"""Hidden patches of some samples beside what a network makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geofm_model.evaluation.pictures import Reconstruction, reconstruction_picture, save_png
from geofm_model.loading import Batch
from geofm_model.loading.members import Split
from geofm_model.models import MaskedAutoencoder, chosen, patch_moments, pixels
from geofm_model.models.masks import of_patches
from geofm_model.sample import Sample
from geofm_model.training.heldout import few
from geofm_model.training.learner import Learner
from geofm_model.training.masked import Preparation, Prepared, baseline_errors, errors_of
from geofm_model.training.runfolder import RunFolder
from geofm_model.views import view_of

SAMPLES = 4
"""In a picture."""


class DivergedError(ValueError):
    """A network gives no finite numbers."""


@torch.no_grad()
def reconstruct_batch(
    model: MaskedAutoencoder,
    batch: Batch,
    preparation: Preparation,
    *,
    bands: tuple[str, ...],
    autocast: AbstractContextManager[object] | None = None,
) -> list[Reconstruction]:
    """Views of some samples, what was shown of them, and the network's prediction of the rest, in counts.

    Parameters
    ----------
    bands : names of the batch's bands
    autocast : in which the network runs

    Raises
    ------
    DivergedError
        When a prediction is not finite.
    """
    prepared = preparation(batch, train=False)
    with autocast or nullcontext():
        predicted = model(prepared.vectors, prepared.grid, prepared.plan, prepared.metadata)
        errors = errors_of(model, prepared, preparation.task)
    if not bool(torch.isfinite(predicted).all()):
        raise DivergedError("the network's predictions are not finite: it diverged, and there is nothing to draw")
    whole = _whole(predicted.float(), prepared, normalised=preparation.task.normalise)
    base = baseline_errors(prepared, preparation.task)
    guessed = _counts(whole, prepared, preparation)
    image = view_of(batch.image, preparation.central(batch))
    seen, valid = _seen(prepared, preparation), _flat(prepared.valid, prepared, preparation)
    days = batch.date[:, : image.shape[1]].cpu().numpy().astype("datetime64[D]")
    return [
        Reconstruction(
            image=image[at].cpu().numpy(),
            predicted=guessed[at].cpu().numpy(),
            seen=seen[at].cpu().numpy(),
            valid=valid[at].cpu().numpy(),
            bands=bands,
            dates=tuple(map(str, days[at])),
            place=_place(float(batch.lat[at]), float(batch.lon[at])),
            loss=_ratio(errors.total[at], errors.weight[at]),
            baseline=_ratio(base.total[at], base.weight[at]),
        )
        for at in range(len(batch))
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """Draws the same few samples again and again."""

    learner: Learner
    folder: RunFolder
    batch: Batch | None
    """None in processes that draw nothing."""
    bands: tuple[str, ...]
    every: int
    name: str = field(default="pictures")

    @classmethod
    def of(cls, learner: Learner, folder: RunFolder, *, split: Split, bands: tuple[str, ...], every: int) -> Pictures:
        """Of the first samples of those that are looked at in a split; drawn by one process."""
        batch = few(learner, split, SAMPLES) if learner.ranks.main else None
        return cls(learner=learner, folder=folder, batch=batch, bands=bands, every=every)

    def look(self, step: int) -> Mapping[str, object]:
        """Write a picture; gives its path within the run, None where the network gives no numbers."""
        learner = self.learner
        if self.batch is None:
            return {}
        try:
            with torch.compiler.set_stance("force_eager"):
                found = reconstruct_batch(
                    learner.best(), self.batch, learner.preparation, bands=self.bands, autocast=learner.autocast()
                )
        except DivergedError:
            return {"picture": None}
        path = self.folder.pictures / f"step-{step:08d}.png"
        save(found, path)
        return {"picture": str(path.relative_to(self.folder.path))}

    def lines(self, found: Mapping[str, object]) -> list[str]:
        """Where it is."""
        if found["picture"] is None:
            return ["  reconstructions: none, the network's predictions are not finite"]
        return [f"  reconstructions: {self.folder.path / str(found['picture'])}"]


def batch_of(samples: Sequence[Sample]) -> Batch:
    """Samples of one store side by side, on the CPU; their index in it is their number."""
    zeros = torch.zeros(len(samples), dtype=torch.int64)
    return Batch(
        image=torch.from_numpy(np.stack([sample.image for sample in samples])),
        fmask=torch.from_numpy(np.stack([sample.fmask for sample in samples])),
        date=torch.from_numpy(np.stack([sample.date for sample in samples])),
        lon=torch.tensor([sample.lon for sample in samples], dtype=torch.float64),
        lat=torch.tensor([sample.lat for sample in samples], dtype=torch.float64),
        stratum=torch.tensor([sample.stratum for sample in samples], dtype=torch.int32),
        weight=torch.ones(len(samples)),
        sample=torch.tensor([sample.index for sample in samples], dtype=torch.int64),
        epoch=zeros,
        turn=zeros,
        rule=samples[0].rule,
    )


def save(found: list[Reconstruction], path: Path) -> None:
    """Write a picture of some reconstructions as PNG."""
    save_png(reconstruction_picture(found), path)


def _whole(predicted: Tensor, prepared: Prepared, *, normalised: bool) -> Tensor:
    """Predictions at their places, [b, n, numbers], 0 where there are none."""
    places = prepared.plan.predicted
    if normalised:
        target, valid = (chosen(part, places) for part in (prepared.vectors, prepared.valid))
        mean, spread = patch_moments(target, valid)
        predicted = predicted * spread + mean
    whole = torch.zeros_like(prepared.vectors)
    return whole.scatter(1, places.unsqueeze(-1).expand_as(predicted), predicted)


def _counts(vectors: Tensor, prepared: Prepared, preparation: Preparation) -> Tensor:
    """[b, n, numbers] normalised → [b, t, c, h, w] in counts."""
    image = pixels(vectors, preparation.patching, prepared.grid)
    mean, std = (part[:, None, None] for part in (preparation.mean, preparation.std))
    return image * std + mean


def _flat(flags: Tensor, prepared: Prepared, preparation: Preparation) -> Tensor:
    """bool [b, n, numbers], the same for all bands → [b, t, h, w]."""
    return pixels(flags, preparation.patching, prepared.grid)[:, :, 0]


def _seen(prepared: Prepared, preparation: Preparation) -> Tensor:
    """bool [b, t, c, h, w], True where a token's band was shown."""
    flags = torch.zeros_like(prepared.valid)
    places = prepared.plan.seen.unsqueeze(-1).expand(-1, -1, flags.shape[-1])
    flags = flags.scatter(1, places, torch.ones_like(places, dtype=torch.bool))
    if prepared.plan.dropped is not None:
        flags = flags & ~of_patches(prepared.plan.dropped, flags.shape[-1])
    return pixels(flags, preparation.patching, prepared.grid)


def _place(lat: float, lon: float) -> str:
    return f"{abs(lat):.3f}° {'N' if lat >= 0 else 'S'}, {abs(lon):.3f}° {'E' if lon >= 0 else 'W'}"


def _ratio(total: Tensor, weight: Tensor) -> float:
    return float(total / weight) if float(weight) else float("nan")
