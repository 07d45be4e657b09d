"""How good the encoder's features are while it learns: what they tell of held-out samples.

All tokens are seen, features are their mean; labels are those of :mod:`geofm_model.training.labels`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from geofm_model.evaluation.probes import (
    Labelled,
    effective_rank,
    linear_probe,
    mean_pooled,
    nearest_neighbours,
    regression_probe,
)
from geofm_model.loading import Batch
from geofm_model.models import Encoder
from geofm_model.training.heldout import Chosen, choose
from geofm_model.training.labels import Labels, labels_of
from geofm_model.training.learner import Learner

LEAST = 10
"""Labelled samples of either split below which there is nothing to probe."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureProbe:
    """kNN, a linear probe and the effective rank, between the training and the held-out split."""

    learner: Learner
    train: Chosen
    heldout: Chosen
    labels: Labels
    every: int
    name: str = "probe"

    @classmethod
    def of(
        cls, learner: Learner, *, labels: str | None, every: int, count: int, note: Callable[[str], None]
    ) -> FeatureProbe:
        """Of up to `count` samples of either split; reads no pixels.

        Parameters
        ----------
        labels : as in :func:`labels_of`
        note : told how many samples have a label, where not all have

        Raises
        ------
        ValueError
            When there are no such labels, or none of these samples has one.
        """
        train, heldout = choose(learner, "train", count), choose(learner, "heldout", count)
        found = labels_of(labels, train.places, train.loader.members)
        _check(
            labels,
            {"training": (train, _count(train, found)), "held-out": (heldout, _count(heldout, found))},
            note,
        )
        return cls(learner=learner, train=train, heldout=heldout, labels=found, every=every)

    def look(self, step: int) -> Mapping[str, object]:
        """Accuracies beside that of the most frequent class, or R²; and the rank of the held-out features."""
        encoder = self.learner.best().encoder
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            train, heldout = (self._labelled(encoder, samples) for samples in (self.train, self.heldout))
        if train is None or heldout is None:
            return {"samples": 0}
        found: dict[str, object] = {
            "labels": self.labels.name,
            "samples": len(heldout),
            "rank": effective_rank(heldout.features, centred=True),
        }
        if train.labels.is_floating_point():
            return found | {"linear_r2": regression_probe(train, heldout).r2[0]}
        near, linear = nearest_neighbours(train, heldout), linear_probe(train, heldout)
        return found | {
            "knn": near.accuracy,
            "knn_balanced": near.balanced_accuracy,
            "linear": linear.accuracy,
            "linear_balanced": linear.balanced_accuracy,
            "majority": near.majority,
            "classes": near.classes,
        }

    def lines(self, found: Mapping[str, object]) -> list[str]:
        """For people."""
        if not found["samples"]:
            return ["  probe: too few labelled samples"]
        said = ", ".join(f"{name} {value:.3f}" for name, value in found.items() if isinstance(value, float))
        return [f"  probe of {found['samples']} held-out samples for {found['labels']}: {said}"]

    def _labelled(self, encoder: Encoder, samples: Chosen) -> Labelled | None:
        members, features = samples.each(lambda batch: self._features(encoder, batch), encoder.config.width)
        there, labels = self.labels.of(samples.loader.members, members)
        features = features[there]
        if len(features) < LEAST:
            return None
        return Labelled(features=torch.from_numpy(features).float(), labels=torch.from_numpy(labels))

    def _features(self, encoder: Encoder, batch: Batch) -> Tensor:
        """[b, width]."""
        prepared = self.learner.preparation(batch, train=False)
        with self.learner.autocast():
            return mean_pooled(encoder(prepared.vectors, prepared.grid, metadata=prepared.metadata))


def _count(samples: Chosen, labels: Labels) -> int:
    """How many of the samples that will be looked at have a label."""
    members = samples.loader.ids(0, samples.count)[0]
    return int(labels.of(samples.loader.members, members)[0].sum())


def _check(wanted: str | None, splits: Mapping[str, tuple[Chosen, int]], note: Callable[[str], None]) -> None:
    """Refuse labels that the user names and no sample of a split has; say where some have none."""
    for split, (samples, labelled) in splits.items():
        if wanted is not None and samples.count and not labelled:
            raise ValueError(
                f"watch.labels {wanted} has a label for none of the {samples.count:,} {split} samples that are probed: "
                "its units must be those of the data (column unit of samples.parquet); give another, or --watch.probe=0"
            )
    if any(labelled < samples.count for samples, labelled in splits.values()):
        counts = (f"{labelled:,} of {samples.count:,} {split}" for split, (samples, labelled) in splits.items())
        few = any(labelled < LEAST for _, labelled in splits.values())
        note(
            f"{' and '.join(counts)} samples have a label to probe for"
            + (f": too few, a probe needs {LEAST} of either" if few else "")
        )
