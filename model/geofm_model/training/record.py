"""What a checkpoint says of itself in words: enough to go on exactly, and to know where its weights are from.

From a granule to a checkpoint: `stores` names every store by the digest of its sealed metadata; the store names its
plan and response, and those name the granules.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from typing import cast

import numpy as np
import torch

from geofm_model.loading import Loader
from geofm_model.loading.loader import LoaderState
from geofm_model.models import DecoderConfig, EncoderConfig, Patching
from geofm_model.training.masked import MaskedTask
from geofm_model.training.pixel_statistics import PixelStatistics
from geofm_model.training.settings import (
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    Pretraining,
    WatchSettings,
    shown,
)


@dataclass(kw_only=True)
class Tally:
    """What a run has counted so far."""

    empty: int = 0
    """Steps without any valid hidden pixel; they change nothing."""
    broken: int = 0
    """Steps whose gradient was not finite; they change nothing."""
    in_a_row: int = 0
    """Of the latter, the last ones without another between them."""
    window: list[float] = field(default_factory=list)
    """Losses since the last line of the log."""


def record_of(
    run: Pretraining, loader: Loader, statistics: PixelStatistics, tally: Tally, world_size: int
) -> dict[str, object]:
    """All of a checkpoint that is not a tensor, as plain JSON values."""
    return {
        "settings": asdict(shown(run)),
        "loader": dict(loader.state_dict()),
        "samples": loader.consumed,
        "statistics": asdict(statistics),
        "tally": asdict(tally),
        "stores": [{"store": s.files.where, "digest": s.header.digest} for s in loader.members.stores],
        "dates": run.task.dates or loader.members.stores[0].header.timesteps,
        "design": design_digest(loader),
        "surroundings": surroundings(run, loader, world_size),
    }


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """A record, read."""

    run: Pretraining
    loader: LoaderState
    statistics: PixelStatistics
    tally: Tally
    design: str | None
    """Digest of the design weights."""
    surroundings: Mapping[str, object]
    """Of :func:`surroundings`."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Of what computed it."""
        return cast(Mapping[str, str], self.surroundings["versions"])


def from_record(record: Mapping[str, object]) -> Resumed:
    """Inverse of :func:`record_of`; ValueError for the record of another version."""
    try:
        return _resumed(record)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"the checkpoint of step {record.get('step')} was written by another version of geofm-model ({error!r}): "
            "read it with that one, or start a new run"
        ) from error


def _resumed(record: Mapping[str, object]) -> Resumed:
    statistics = cast(Mapping[str, Sequence[float]], record["statistics"])
    return Resumed(
        run=_settings(cast(Mapping[str, object], record["settings"])),
        loader=cast(LoaderState, record["loader"]),
        statistics=PixelStatistics(
            bands=tuple(map(str, statistics["bands"])), mean=tuple(statistics["mean"]), std=tuple(statistics["std"])
        ),
        tally=Tally(**cast(Mapping[str, int], record["tally"])),  # type: ignore[arg-type]
        design=cast("str | None", record["design"]),
        surroundings=cast(Mapping[str, object], record["surroundings"]),
    )


def design_digest(loader: Loader) -> str | None:
    """SHA-256 of the samples' design weights; None where there are none."""
    design = loader.members.design
    return None if design is None else sha256(design.astype("<f8").tobytes()).hexdigest()


def surroundings(run: Pretraining, loader: Loader, world_size: int) -> dict[str, object]:
    """What an exact continuation shares."""
    return {
        "accumulate": run.data.accumulate,
        "compile": run.model.compile,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "world_size": world_size,
        "threads": torch.get_num_threads(),
        "device": device_name(loader.device),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of what computes."""
    try:
        mine = version("geofm-model")
    except PackageNotFoundError:  # run from a folder on the path
        mine = "unknown"
    return {
        "geofm-model": mine,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def device_name(device: torch.device) -> str:
    """`cpu`, or the name of a GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _settings(plain: Mapping[str, object]) -> Pretraining:
    """Settings of their JSON form; unknown names are an error, so a checkpoint of another version is not misread."""
    values = dict(plain)
    parts = {name: dict(cast(Mapping[str, object], values.pop(name))) for name in _PARTS}
    model = parts["model"]
    encoder = dict(cast(Mapping[str, object], model.pop("encoder")))
    patching = Patching(**cast(Mapping[str, int], encoder.pop("patching")))
    decoder = DecoderConfig(**cast(Mapping[str, int], model.pop("decoder")))
    optimizer = parts["optimizer"]
    optimizer["betas"] = tuple(cast(Sequence[float], optimizer["betas"]))
    return Pretraining(
        data=DataSettings(**parts["data"]),  # type: ignore[arg-type]
        model=ModelSettings(encoder=EncoderConfig(**encoder, patching=patching), decoder=decoder, **model),  # type: ignore[arg-type]
        task=MaskedTask(**parts["task"]),  # type: ignore[arg-type]
        optimizer=OptimizerSettings(**optimizer),  # type: ignore[arg-type]
        watch=WatchSettings(**parts["watch"]),  # type: ignore[arg-type]
        **values,  # type: ignore[arg-type]
    )


_PARTS = ("data", "model", "task", "optimizer", "watch")
