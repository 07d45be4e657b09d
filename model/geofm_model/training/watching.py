"""What is looked at beside the training, every so many steps; all of it only reads the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from geofm_model.loading import Loader
from geofm_model.loading.members import Split
from geofm_model.models import Encoder
from geofm_model.training.heldout import choose, has_split
from geofm_model.training.learner import Learner
from geofm_model.training.probing import FeatureProbe
from geofm_model.training.reconstruction import Pictures
from geofm_model.training.runfolder import RunFolder
from geofm_model.training.validation import Validation


class Watcher(Protocol):
    """Looks at a network now and then, on all processes at the same steps."""

    @property
    def name(self) -> str:
        """Of its events in the log."""
        ...

    @property
    def every(self) -> int:
        """Steps between two looks; 0 for the end only."""
        ...

    def look(self, step: int) -> Mapping[str, object]:
        """What is found after `step` steps; nothing leaves no event. Raises StoppedError when asked to stop."""
        ...

    def lines(self, found: Mapping[str, object]) -> list[str]:
        """What to tell people of it."""
        ...


class Probe(Protocol):
    """A look of the user's own at an encoder while it learns."""

    def __call__(self, encoder: Encoder, step: int) -> Mapping[str, float]:
        """Numbers for the log, by name; the encoder is in evaluation mode and must not be changed."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnProbe:
    """Calls a user's probe."""

    probe: Probe
    learner: Learner
    every: int
    name: str = "own_probe"

    def look(self, step: int) -> Mapping[str, object]:
        """What the probe says of the averaged encoder, or of the encoder where there is no average."""
        network = self.learner.best()
        training = network.training
        try:
            with torch.no_grad():
                return dict(self.probe(network.eval().encoder, step))
        finally:
            network.train(training)

    def lines(self, found: Mapping[str, object]) -> list[str]:
        """Its numbers."""
        return ["  " + ", ".join(f"{name} {value}" for name, value in found.items())] if found else []


_TRAIN: Split = "train"
_HELDOUT: Split = "heldout"


def watchers_of(
    learner: Learner, loader: Loader, folder: RunFolder, probes: Sequence[Probe], note: Callable[[str], None]
) -> list[Watcher]:
    """What a run's settings ask for, as far as its data have held-out samples; `note` is told what people should know.

    Raises ValueError where labels are asked for that the samples do not have.
    """
    watch, found = learner.run.watch, list[Watcher]()
    heldout = has_split(loader, "heldout")
    if heldout and watch.validate:
        samples = choose(learner, "heldout", watch.validation_samples)
        found.append(Validation(learner=learner, samples=samples, every=watch.validate))
    if watch.pictures:
        bands, split = loader.members.stores[0].header.bands, _HELDOUT if heldout else _TRAIN
        found.append(Pictures.of(learner, folder, split=split, bands=bands, every=watch.pictures))
    if heldout and watch.probe:
        every, count = watch.probe, watch.probe_samples
        found.append(FeatureProbe.of(learner, labels=watch.labels, every=every, count=count, note=note))
    if watch.labels is not None and not watch.probe:
        note("watch.labels is not used: watch.probe is 0, which probes for nothing")
    found += [OwnProbe(probe=probe, learner=learner, every=watch.probe) for probe in probes]
    return found
