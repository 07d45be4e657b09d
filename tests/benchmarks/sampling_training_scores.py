"""What a network of sampling_training.py is worth on the held-out samples: errors one by one, and features.

A run normalises by the mean and spread of its own training set, so losses in its units cannot be compared between sets.
Here errors are taken back to reflectance and divided by the spread of the whole pool's training ground.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sampling_training_data import Pool
from torch import Tensor

from geofm_model import Store
from geofm_model.evaluation.probes import Labelled, linear_probe, mean_pooled, nearest_neighbours
from geofm_model.models import MaskedAutoencoder, chosen
from geofm_model.training.masked import Preparation
from geofm_model.training.reconstruction import batch_of
from geofm_model.training.trained import load_trained
from geofm_sampling.hashing import hashed_uniform

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

MASKS = 20_220_601
"""Seed of the masks of the held-out samples, the same for every network."""
PROBED = 1024
"""Training units, drawn once and simply at random, that the probes of all networks learn from."""
BATCH = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Yardstick:
    """Samples and units that all networks are measured by."""

    heldout: Indices
    """In the pool's store."""
    probed: Indices
    mean: Tensor
    """Of each band over the pool's training ground, counts."""
    std: Tensor

    @classmethod
    def of(cls, pool: Pool) -> Yardstick:
        lots = np.argsort(hashed_uniform(0, "probe", pool.training))
        bands = pool.store.statistics["train"].values()
        return cls(
            heldout=pool.heldout,
            probed=np.sort(pool.indices(pool.training[lots[:PROBED]])),
            mean=torch.tensor([band.mean for band in bands]),
            std=torch.tensor([band.std for band in bands]),
        )


def score(run: Path, pool: Pool, yardstick: Yardstick) -> dict[str, NDArray[np.generic]]:
    """Of each held-out sample: `errors` Σ e² over its hidden valid numbers, their number `counts`, `baseline` errors
    of the pool's band means, and whether `knn` and `linear` probes tell its land cover."""
    trained = load_trained(run)
    prepare = trained.preparation(trained.task, MASKS)
    errors, counts, baseline = _errors(trained.model, prepare, pool.store, yardstick).T
    labels = np.unique(pool.column("land_cover"), return_inverse=True)[1]
    known = {
        name: Labelled(features=_features(trained.model, prepare, pool.store, at), labels=torch.from_numpy(labels[at]))
        for name, at in (("train", yardstick.probed), ("heldout", yardstick.heldout))
    }
    near, linear = (probe(known["train"], known["heldout"]) for probe in (nearest_neighbours, linear_probe))
    truth = known["heldout"].labels
    return {
        "errors": errors,
        "counts": counts,
        "baseline": baseline,
        "knn": (near.predicted == truth).numpy(),
        "linear": (linear.predicted == truth).numpy(),
    }


@torch.no_grad()
def _errors(model: MaskedAutoencoder, prepare: Preparation, store: Store, yardstick: Yardstick) -> Floats:
    """[n, 3] errors, counts and errors of the pool's band means, in common units."""
    rows = []
    repeats = prepare.patching.dates * prepare.patching.size**2  # bands are fastest in a patch
    scale = (prepare.std / yardstick.std).repeat(repeats)
    shift = ((prepare.mean - yardstick.mean) / yardstick.std).repeat(repeats)
    for part in np.array_split(yardstick.heldout, -(-yardstick.heldout.size // BATCH)):
        prepared = prepare(batch_of([store.sample(int(index)) for index in part]), train=False)
        predicted = model(prepared.vectors, prepared.grid, prepared.plan, prepared.metadata)
        target, valid = (chosen(values, prepared.plan.predicted) for values in (prepared.vectors, prepared.valid))
        squared = torch.stack([((predicted - target) * scale) ** 2, (target * scale + shift) ** 2], dim=-1)
        sums = (squared.double() * valid.unsqueeze(-1)).sum(dim=(1, 2))
        rows.append(torch.stack([sums[:, 0], valid.sum(dim=(1, 2)).double(), sums[:, 1]], dim=1))
    return torch.cat(rows).numpy()


@torch.no_grad()
def _features(model: MaskedAutoencoder, prepare: Preparation, store: Store, indices: Indices) -> Tensor:
    """[n, width] of whole samples."""
    parts = []
    for part in np.array_split(indices, -(-indices.size // BATCH)):
        prepared = prepare(batch_of([store.sample(int(index)) for index in part]), train=False)
        parts.append(mean_pooled(model.encoder(prepared.vectors, prepared.grid, metadata=prepared.metadata)))
    return torch.cat(parts)
