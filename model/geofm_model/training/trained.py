"""Trained networks, wherever they are from: a run, one of its checkpoints, an exported folder, a Prithvi file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor

from geofm_model.exchange import Description, load_network, read_prithvi_network, with_decoder
from geofm_model.models import Encoder, MaskedAutoencoder
from geofm_model.training.checkpoints import open_checkpoint
from geofm_model.training.masked import MaskedTask, Preparation
from geofm_model.training.record import from_record

Weights = Literal["best", "average", "last"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """A network and what it was trained on."""

    model: MaskedAutoencoder
    """On the CPU, in evaluation mode."""
    description: Description
    task: MaskedTask
    """What it was asked."""

    def preparation(self, task: MaskedTask, seed: int) -> Preparation:
        """How samples are put to it, on the CPU."""
        mean, std = self.description.statistics.tensors()
        encoder = self.description.encoder
        return Preparation(
            task=task, patching=encoder.patching, mean=mean, std=std, seed=seed, metadata=encoder.metadata
        )


def load_trained(place: str | Path, weights: Weights = "best") -> Trained:
    """Read a trained network.

    Parameters
    ----------
    place : folder of a run (its newest checkpoint is taken), of a checkpoint, or of an export; or a Prithvi .pt file
    weights : of a run: their moving `average`, the `last` ones, or the `best`, which is the average where there is one

    Raises
    ------
    ValueError
        When there is no network, or it is not as it should be.
    """
    exported = _exported(place)
    if exported is None:
        return _of_checkpoint(Path(place).expanduser(), weights)
    model, description = exported
    task = MaskedTask(
        size=description.size, dates=description.dates, ratio=description.ratio, normalise=description.normalise
    )
    return Trained(model=with_decoder(model, place).eval(), description=description, task=task)


def load_weights(place: str | Path, weights: Weights = "best") -> tuple[MaskedAutoencoder | Encoder, Description]:
    """The network of :func:`load_trained` and what describes it; an encoder alone where there is no decoder."""
    exported = _exported(place)
    if exported is not None:
        return exported
    trained = _of_checkpoint(Path(place).expanduser(), weights)
    return trained.model, trained.description


def _exported(place: str | Path) -> tuple[MaskedAutoencoder | Encoder, Description] | None:
    """What was written for others at a place; None where nothing was."""
    path = Path(place).expanduser()
    if (path / "model.pt").is_file() and (path / "config.json").is_file():
        path = path / "model.pt"
    if path.suffix in (".pt", ".pth") and path.is_file():
        return read_prithvi_network(path)
    return load_network(path) if (path / "model.safetensors").exists() else None


def _of_checkpoint(path: Path, weights: Weights) -> Trained:
    checkpoint = open_checkpoint(path)
    resumed = from_record(checkpoint.record)
    run, state = resumed.run, checkpoint.state()
    kind = weights if weights != "best" else "average" if "average" in state else "last"
    if kind == "average" and "average" not in state:
        raise ValueError(f"{checkpoint.path} has no average of weights (model.average was null): take the last ones")
    with torch.device("meta"):
        model = MaskedAutoencoder(run.model.encoder, run.model.decoder)
    model.load_state_dict(cast(dict[str, Tensor], state["average" if kind == "average" else "model"]), assign=True)
    stores = cast(list[dict[str, str]], checkpoint.record["stores"])
    description = Description(
        encoder=run.model.encoder,
        decoder=run.model.decoder,
        statistics=resumed.statistics,
        size=run.task.size,
        dates=int(str(checkpoint.record["dates"])),
        ratio=run.task.ratio,
        normalise=run.task.normalise,
        provenance={
            "checkpoint": str(checkpoint.path.name),
            "checkpoint_sha256": str(checkpoint.record["sha256"]),
            "weights": kind,
            "samples_seen": str(checkpoint.record["samples"]),
            "stores": ", ".join(f"{store['store']} {store['digest']}" for store in stores),
            "versions": ", ".join(f"{name} {text}" for name, text in resumed.versions.items()),
        },
    )
    return Trained(model=model.eval().requires_grad_(False), description=description, task=run.task)
