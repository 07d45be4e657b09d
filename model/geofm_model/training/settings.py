"""What a pre-training run is: one complete configuration, checked before anything is read.

Every field is an option of `geofm-train pretrain` and a key of its YAML file. A recipe (geofm_model/recipes) is such a
file without `data.store` and `out`; a variant of a run changes a field or two.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from geofm_model.files import files_at
from geofm_model.models import DecoderConfig, EncoderConfig
from geofm_model.training.masked import REPEATS, MaskedTask
from geofm_model.training.schedules import Shape

Weighting = Literal["none", "order", "loss"]
Precision = Literal["float32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What is streamed."""

    store: str | list[str]
    """Dataset folder of geofm-sample or a store, by path or address, or a list of several."""
    shares: list[float] | None = None
    """What part of the stream each dataset makes, relative; null by their numbers of samples."""
    weighting: Weighting = "none"
    """Where design weights act: in the order (samples come as often as they stand for ground), in the loss, or not."""
    batch_size: int = 256
    """Samples of one optimizer step, of all ranks together."""
    accumulate: int = 1
    """Parts that a step's samples are cut into, one forward and backward each."""
    threads: int | None = None
    """That read and decode, per rank; null takes one per core."""
    prefetch: int = 2
    """Parts that are read ahead."""

    @property
    def stores(self) -> list[str]:
        """All datasets."""
        return [self.store] if isinstance(self.store, str) else list(self.store)

    @property
    def part(self) -> int:
        """Samples of one forward and backward, of all ranks together."""
        return self.batch_size // self.accumulate


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The network."""

    encoder: EncoderConfig
    """Sees what is not hidden; it is what is used afterwards."""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    """Predicts what is hidden."""
    compile: bool = False
    """Compile each transformer block (half a minute on a CPU, once)."""
    average: float | None = None
    """Decay of the moving average of all weights, e.g. 0.9999; null keeps none."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW and its schedule."""

    rate: float = 1.5e-4
    """Learning rate per 256 views (samples × repeats) of a step."""
    decay: float = 0.05
    """Weight decay of matrices; biases, norms and tokens have none."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decays of the running means of the gradient and of its square."""
    clip: float | None = None
    """Largest norm of a step's gradient; null only logs it."""
    shape: Shape = "cosine"
    """`cosine` to 0, or `constant` with a cool-down by 1 − √."""
    warmup: float = 0.1
    """Share of the steps in which the rate rises."""
    cooldown: float = 0.2
    """Share of the steps in which a constant rate falls."""


@dataclass(frozen=True, kw_only=True)
class WatchSettings:
    """What is looked at, and how often, in steps; 0 never."""

    log: int = 10
    """A line of log.jsonl."""
    checkpoint: int = 500
    """A checkpoint; there is always one at the end, and at SIGTERM."""
    keep: int = 2
    """Checkpoints that are kept, the newest; 0 keeps all."""
    validate: int = 500
    """Errors on the held-out split."""
    validation_samples: int = 4096
    """Held-out samples that are looked at, always the same ones."""
    pictures: int = 500
    """Reconstructions of held-out samples as PNG."""
    probe: int = 0
    """kNN and linear probe of the encoder's features."""
    probe_samples: int = 2048
    """Samples of either split that are probed."""
    labels: str | None = None
    """What to probe for: a column of samples.parquet, `stratum`, or a Parquet file with columns unit and label; null
    takes the land cover that samples were drawn by where it is known, else the strata."""
    tensorboard: bool = False
    """Scalars for TensorBoard, too (needs the package tensorboard)."""


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """A run of masked pre-training."""

    data: DataSettings
    model: ModelSettings
    task: MaskedTask = field(default_factory=MaskedTask)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    watch: WatchSettings = field(default_factory=WatchSettings)
    out: str
    """Folder of the run; the same command continues what is there."""
    epochs: float = 100.0
    """Length of the run in passes over the training split."""
    steps: int | None = None
    """Length of the run in optimizer steps, instead of epochs."""
    repeats: int = 1
    """Views of each sample in a step: read and decoded once, cropped and masked anew."""
    precision: Precision = "bf16"
    """`bf16` runs the network under autocast; weights, gradients and loss stay float32."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU where there is one."""
    seed: int = 0
    """Of weights, order, views and masks."""
    patience: int = 20
    """Steps in a row without a finite gradient after which the run stops."""

    def __post_init__(self) -> None:
        _check(self)

    def step_count(self, samples: int) -> int:
        """Optimizer steps of the whole run over a split of `samples`."""
        if self.steps is not None:
            return self.steps
        return max(1, round(self.epochs * samples / self.data.batch_size))

    @property
    def views(self) -> int:
        """Views of one optimizer step."""
        return self.data.batch_size * self.repeats


def shown(run: Pretraining) -> Pretraining:
    """As it may be written down: addresses without user, password and query, which may be secret."""
    places = [files_at(place).where for place in run.data.stores]
    return replace(run, data=replace(run.data, store=places[0] if isinstance(run.data.store, str) else places))


OF_THE_MACHINE = frozenset(
    {"out", "device", "model.compile", "data.store", "data.threads", "data.prefetch", "data.accumulate", "patience"}
    | {f"watch.{name}" for name in WatchSettings.__dataclass_fields__}
)
"""Fields that may change between the parts of a resumed run: they do not say what is learnt. (Stores may move; their
digest is checked.)"""


def flat(settings: Pretraining) -> dict[str, object]:
    """Every field by its dotted name, as plain JSON values."""
    return dict(_leaves("", json.loads(json.dumps(asdict(settings)))))


def differences(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """What a resumed run may not change, as `name: old → new`."""
    names = sorted((set(old) | set(new)) - OF_THE_MACHINE)
    return [f"{name}: {old.get(name)} → {new.get(name)}" for name in names if old.get(name) != new.get(name)]


def _leaves(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    if not isinstance(value, dict):
        yield prefix, value
        return
    for name, part in value.items():
        yield from _leaves(f"{prefix}.{name}" if prefix else name, part)


def _check(run: Pretraining) -> None:
    for name, value, fits, rule in _rules(run):
        if not fits:
            said = f"{value:g}" if isinstance(value, float) else value
            raise ValueError(f"{name} must be {rule}, got {said}")
    data, optimizer = run.data, run.optimizer
    if optimizer.shape == "constant" and optimizer.warmup + optimizer.cooldown > 1:
        raise ValueError(
            f"optimizer.warmup {optimizer.warmup:g} and optimizer.cooldown {optimizer.cooldown:g} are more than the "
            "whole run: together they may be 1"
        )
    if data.batch_size % data.accumulate:
        raise ValueError(
            f"data.batch_size {data.batch_size} must be a multiple of data.accumulate {data.accumulate}: every part of "
            "a step is as large as the others"
        )
    if not data.stores or not all(data.stores):
        raise ValueError("data.store names no dataset: give a folder of geofm-sample, --data.store=FOLDER")
    if not run.out:  # the current folder, as a path
        raise ValueError("out is empty: name the folder of the run, --out=FOLDER")


def _rules(run: Pretraining) -> Iterator[tuple[str, object, bool, str]]:
    """Names of fields with their values, whether they are right, and what they must be; NaN is never right."""
    data, watch, optimizer, average = run.data, run.watch, run.optimizer, run.model.average
    counts = {
        "data.batch_size": data.batch_size,
        "data.accumulate": data.accumulate,
        "data.prefetch": data.prefetch,
        "data.threads": data.threads,
        "task.size": run.task.size,
        "task.dates": run.task.dates,
        "steps": run.steps,
        "patience": run.patience,
        "watch.log": watch.log,
        "watch.validation_samples": watch.validation_samples,
        "watch.probe_samples": watch.probe_samples,
    }
    for name, value in counts.items():
        yield name, value, value is None or value >= 1, "at least 1"
    for name in ("checkpoint", "keep", "validate", "pictures", "probe"):
        value = getattr(watch, name)
        yield f"watch.{name}", value, value >= 0, "at least 1, or 0 " + ("for all" if name == "keep" else "for never")
    yield "repeats", run.repeats, 1 <= run.repeats <= REPEATS, f"from 1 to {REPEATS}"
    yield "epochs", run.epochs, 0 < run.epochs < float("inf"), "above 0 and finite"
    yield "seed", run.seed, 0 <= run.seed < 2**63, "from 0 to 2⁶³ − 1"
    shares = data.shares or [1.0]
    yield "data.shares", shares, all(0 < share < float("inf") for share in shares), "numbers above 0"
    yield "model.average", average, average is None or 0 < average < 1, "between 0 and 1, or null"
    rate, decay, clip = optimizer.rate, optimizer.decay, optimizer.clip
    yield "optimizer.rate", rate, rate > 0, "above 0"
    yield "optimizer.decay", decay, decay >= 0, "at least 0"
    yield "optimizer.clip", clip, clip is None or clip > 0, "above 0, or null"
    betas = list(optimizer.betas)
    yield "optimizer.betas", betas, all(0 <= beta < 1 for beta in betas), "two numbers from 0 to below 1"
    yield "optimizer.warmup", optimizer.warmup, 0 <= optimizer.warmup < 1, "a share of the steps, from 0 to below 1"
    yield "optimizer.cooldown", optimizer.cooldown, 0 <= optimizer.cooldown <= 1, "a share of the steps, from 0 to 1"
