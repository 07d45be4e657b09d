"""The commands of `geofm-train`, one function each: arguments in, exit code and what goes to stdout out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from geofm_model.evaluation.pictures import curves_picture, save_png
from geofm_model.exchange import save_model, write_prithvi
from geofm_model.loading import open_dataset
from geofm_model.models import MaskedAutoencoder
from geofm_model.options import parse_curves, parse_export, parse_pretraining, parse_reconstruction
from geofm_model.store import Store
from geofm_model.training.checkpoints import CheckpointWriteError
from geofm_model.training.distributed import Ranks, joined
from geofm_model.training.pretrain import TrainingError
from geofm_model.training.pretrain import pretrain as train
from geofm_model.training.progress import Progress
from geofm_model.training.reconstruction import batch_of, reconstruct_batch, save
from geofm_model.training.runlog import read_log
from geofm_model.training.stopping import listening
from geofm_model.training.trained import load_trained, load_weights

Done = tuple[int, str]
"""Exit code, and what goes to stdout."""
USER_ERRORS = (ValueError, IndexError, TrainingError, CheckpointWriteError, OSError)
"""With a remedy in their words (StoreError and CheckpointError are ValueErrors)."""


def pretrain(argv: Sequence[str], environment: Mapping[str, str]) -> Done:
    """Train, or go on with a run."""
    settings = parse_pretraining(argv)
    ranks = Ranks.of(environment)
    progress = Progress(sys.stderr)
    with joined(ranks, ranks.device(settings.device)), listening(says=ranks.main) as stop:
        outcome = train(settings, ranks=ranks, progress=progress, stop=stop)
    code = 128 + (stop.signal or 15) if outcome == "interrupted" else 0
    return code, settings.out if ranks.main else ""


def reconstruct(argv: Sequence[str], environment: Mapping[str, str]) -> Done:
    """Hide patches of some samples and draw the prediction."""
    wanted = parse_reconstruction(argv)
    trained = load_trained(wanted.network, wanted.weights)
    store = _one_store(wanted.store)
    changes = {name: getattr(wanted, name) for name in ("ratio", "masking", "dates", "size", "drop_bands")}
    task = replace(trained.task, **{name: value for name, value in changes.items() if value is not None})
    if not wanted.samples:
        raise ValueError("samples is empty: give indices of samples in the store, --samples=[0,7]")
    batch = batch_of([store.sample(index) for index in wanted.samples])
    names = store.header.bands
    if names != trained.description.statistics.bands:
        raise ValueError(
            f"{store.files.where} has the bands {', '.join(names)}, the network was trained on "
            f"{', '.join(trained.description.statistics.bands)}"
        )
    found = reconstruct_batch(trained.model, batch, trained.preparation(task, wanted.seed), bands=names)
    save(found, Path(wanted.out))
    pairs = zip(wanted.samples, found, strict=True)
    said = [f"sample {at}: loss {one.loss:.4f}, mean of each band {one.baseline:.4f}" for at, one in pairs]
    return 0, "\n".join([*said, wanted.out])


def _one_store(place: str) -> Store:
    """The store at `place`, or the only one of a dataset folder."""
    found = open_dataset(place)
    if len(found) > 1:
        raise ValueError(f"there are {len(found)} stores: name one, {', '.join(s.files.where for s in found)}")
    return found[0]


def curves(argv: Sequence[str], environment: Mapping[str, str]) -> Done:
    """Draw the losses of some runs."""
    wanted = parse_curves(argv)
    names = [Path(run).name for run in wanted.runs]
    alike = len(set(names)) < len(names)
    logs = {run if alike else name: read_log(run) for run, name in zip(wanted.runs, names, strict=True)}
    save_png(curves_picture(logs), Path(wanted.out))
    return 0, wanted.out


def export(argv: Sequence[str], environment: Mapping[str, str]) -> Done:
    """Write weights for others."""
    wanted = parse_export(argv)
    model, description = load_weights(wanted.network, wanted.weights)
    if wanted.part == "encoder" and isinstance(model, MaskedAutoencoder):
        model, description = model.encoder, replace(description, decoder=None)
    write = write_prithvi if wanted.format == "prithvi" else save_model
    write(Path(wanted.out), model, description)
    return 0, wanted.out
