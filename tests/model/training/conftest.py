"""A run small enough for a test: 21 samples of 16 × 16 px, a network of two blocks, a step in some milliseconds."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from geofm_model.models import DecoderConfig, EncoderConfig, Patching
from geofm_model.training.masked import MaskedTask
from geofm_model.training.settings import DataSettings, ModelSettings, Pretraining, WatchSettings

# tests/model/streaming.py, which folders below cannot import by name
_spec = importlib.util.spec_from_file_location("streaming", Path(__file__).parents[1] / "streaming.py")
assert _spec is not None
assert _spec.loader is not None
_streaming = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_streaming)
write_dataset: Callable[..., Path] = _streaming.write_dataset
MakeRun = Callable[..., Pretraining]
MakeStore = Callable[..., Path]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tests run side by side; sums in another order would not be equal bit by bit."""
    torch.set_num_threads(1)


@pytest.fixture
def make_run(store: Path, tmp_path: Path) -> MakeRun:
    """Settings of a small run into `tmp_path/run`; parts are changed by dictionaries, e.g. data={"batch_size": 8}."""

    def make(**changes: object) -> Pretraining:
        run = Pretraining(
            data=DataSettings(store=str(store), batch_size=4, threads=1),
            model=ModelSettings(
                encoder=EncoderConfig(width=32, depth=2, heads=2, patching=Patching(size=4)),
                decoder=DecoderConfig(width=32, depth=1, heads=2),
            ),
            task=MaskedTask(size=12, ratio=0.7),
            watch=WatchSettings(log=1, checkpoint=0, validate=0, pictures=0),
            out=str(tmp_path / "run"),
            steps=12,
            precision="float32",
            device="cpu",
            seed=3,
        )
        parts = {
            name: replace(getattr(run, name), **change) if isinstance(change, Mapping) else change
            for name, change in changes.items()
        }
        return replace(run, **parts)  # type: ignore[arg-type]

    return make
