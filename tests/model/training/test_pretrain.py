"""A run is a function of its settings and data: stopped and continued it is the same, bit by bit."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from geofm_model import Store
from geofm_model.models import Encoder, EncoderConfig, Patching
from geofm_model.training.checkpoints import open_checkpoint
from geofm_model.training.masked import baseline_errors, errors_of
from geofm_model.training.pretrain import TrainingError, pretrain
from geofm_model.training.progress import Progress
from geofm_model.training.reconstruction import batch_of
from geofm_model.training.runlog import read_log
from geofm_model.training.settings import Pretraining, differences, flat, shown
from geofm_model.training.stopping import Stop
from geofm_model.training.trained import load_trained

from .conftest import MakeRun, MakeStore, write_dataset

DATED = EncoderConfig(width=32, depth=2, heads=2, patching=Patching(size=4), metadata=True)


class StopAt(Stop):
    """Wants to stop from the n-th question on; it is asked once per step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._left = step

    @property
    def wanted(self) -> bool:
        self._left -= 1
        return self._left < 0


class Killed(BaseException):
    """As by kill -9: nobody hears of it."""


class KillAt(StopAt):
    """Ends the process's work where another would want to stop."""

    @property
    def wanted(self) -> bool:
        self._left -= 1
        if self._left <= 0:
            raise Killed
        return False


def final(run: Pretraining) -> dict[str, Tensor]:
    """All tensors of the newest checkpoint by name."""
    found: dict[str, Tensor] = {}

    def collect(prefix: str, value: object) -> None:
        if isinstance(value, Tensor):
            found[prefix] = value
        elif isinstance(value, Mapping):
            for name, part in value.items():
                collect(f"{prefix}.{name}", part)

    collect("", open_checkpoint(run.out).state())
    return found


def number(entry: Mapping[str, object], name: str) -> float:
    """A number of an event."""
    value = entry[name]
    assert isinstance(value, int | float)
    return float(value)


def losses(run: Pretraining) -> list[tuple[object, object]]:
    """The curve, as logged."""
    return [(entry["step"], entry["loss"]) for entry in read_log(run.out, "train")]


@pytest.mark.parametrize("stops", [[5], [1, 2]])
def test_a_run_that_was_stopped_is_the_same_bit_by_bit(make_run: MakeRun, tmp_path: Path, stops: list[int]) -> None:
    """Weights, moments, average and every loss, with accumulation, repeats, metadata and mixed precision."""
    changes = {
        "data": {"batch_size": 6, "accumulate": 3},
        "repeats": 2,
        "precision": "bf16",
        "model": {"average": 0.9, "encoder": DATED},
        "watch": {"log": 2, "checkpoint": 4},
    }
    whole, parts = make_run(**changes), make_run(**changes, out=str(tmp_path / "parts"))
    assert pretrain(whole) == "finished"
    for step in stops:
        assert pretrain(parts, stop=StopAt(step)) == "interrupted"
        assert json.loads((tmp_path / "parts" / "status.json").read_text())["state"] == "interrupted"
    assert pretrain(parts) == "finished"
    expected, found = final(whole), final(parts)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    curve = dict(losses(whole))
    # A stop adds a line of its own to the log; lines at the usual steps that it did not cut are the same.
    same = [(step, loss) for step, loss in losses(parts) if curve.get(step) == loss]
    assert len(same) >= len(curve) - len(stops)


def test_a_curve_after_a_kill_is_the_same(make_run: MakeRun, tmp_path: Path) -> None:
    """Steps after the last checkpoint are taken again, and give the same losses."""
    changes = {"watch": {"checkpoint": 4}}
    whole, parts = make_run(**changes), make_run(**changes, out=str(tmp_path / "parts"))
    pretrain(whole)

    with pytest.raises(Killed):
        pretrain(parts, stop=KillAt(11))
    assert open_checkpoint(parts.out).step == 8
    pretrain(parts)
    assert losses(parts) == losses(whole)


def test_what_a_second_command_does(make_run: MakeRun) -> None:
    """A finished run stays as it is, and that is all that is said; other settings are refused by name, those of the
    machine are not."""
    run, said = make_run(), io.StringIO()
    pretrain(run, stop=StopAt(4))
    pretrain(run, progress=Progress(said))
    assert said.getvalue().startswith(f"going on from {run.out}/checkpoints/step-")
    before = {path: path.stat().st_mtime_ns for path in Path(run.out).rglob("*") if path.name != ".lock"}
    said = io.StringIO()
    assert pretrain(run, progress=Progress(said)) == "finished"
    assert said.getvalue() == f"{run.out} is finished: 12 steps were done; nothing to do\n"
    assert {path: path.stat().st_mtime_ns for path in Path(run.out).rglob("*") if path.name != ".lock"} == before
    with pytest.raises(ValueError, match=r"optimizer.rate: 0.00015 → 0.1"):
        pretrain(replace(run, optimizer=replace(run.optimizer, rate=0.1)))
    with pytest.raises(ValueError, match=r"task.ratio: 0.7 → 0.5"):
        pretrain(replace(run, task=replace(run.task, ratio=0.5)))
    calmer = replace(run, watch=replace(run.watch, log=5), data=replace(run.data, threads=2))
    assert pretrain(calmer) == "finished"


def test_a_run_may_not_go_on_with_other_data(make_run: MakeRun, make_store: MakeStore) -> None:
    """The stores may have moved, but must be the same ones."""
    run = make_run()
    pretrain(run, stop=StopAt(4))
    other = make_store(seed=9)
    with pytest.raises(ValueError, match="was made with other data than"):
        pretrain(replace(run, data=replace(run.data, store=str(other))))
    moved = Path(run.out).parent / "moved.zarr"
    moved.symlink_to(run.data.stores[0])
    assert pretrain(replace(run, data=replace(run.data, store=str(moved)))) == "finished"


def test_a_folder_with_other_things_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    """Nothing of it is touched; so is a file, and a folder in which another process trains."""
    run = make_run()
    Path(run.out).mkdir()
    (Path(run.out) / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="holds no run"):
        pretrain(run)
    assert [path.name for path in Path(run.out).iterdir()] == ["thesis.tex"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="which is a file"):
        pretrain(replace(run, out=str(tmp_path / "file")))


def test_two_processes_do_not_train_in_one_folder(make_run: MakeRun) -> None:
    """The second one is refused while the first runs."""
    run = make_run()

    class Second(Stop):
        @property
        def wanted(self) -> bool:
            with pytest.raises(ValueError, match="another process trains"):
                pretrain(run)
            return True

    assert pretrain(run, stop=Second()) == "interrupted"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": {"size": 32}}, "do not fit the stores' samples"),
        ({"task": {"dates": 3}}, "views of 3 dates"),
        ({"task": {"size": 10}}, "no whole patches"),
        ({"data": {"store": "/nowhere"}}, "nowhere"),
        ({"data": {"weighting": "loss"}}, "no samples.parquet"),
        ({"device": "tpu"}, "device must be"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_written(
    make_run: MakeRun, changes: dict[str, object], message: str
) -> None:
    """With the value and the remedy; no folder of a run is left behind."""
    run = make_run(**changes)
    with pytest.raises(ValueError, match=message):
        pretrain(run)
    assert not Path(run.out).exists()


def test_bands_must_be_those_of_the_network(make_run: MakeRun) -> None:
    """A network of four bands cannot read six."""
    run = make_run()
    patching = replace(run.model.encoder.patching, bands=4)
    encoder = replace(run.model.encoder, patching=patching)
    with pytest.raises(ValueError, match=r"6 bands.*is 4"):
        pretrain(replace(run, model=replace(run.model, encoder=encoder)))


def test_a_run_that_broke_says_so(make_run: MakeRun) -> None:
    """After `patience` steps without a finite gradient; status.json says failed."""
    run = make_run(optimizer={"rate": 1e30, "warmup": 0.0}, patience=3, steps=50)
    with pytest.raises(TrainingError, match="no finite gradient in 3 steps"):
        pretrain(run)
    status = json.loads((Path(run.out) / "status.json").read_text())
    assert status["state"] == "failed"
    assert "no finite gradient" in status["remark"]


def test_a_run_that_taught_nothing_is_no_success(make_run: MakeRun) -> None:
    """Shorter than `patience`, with weights that are no numbers any more."""
    run = make_run(optimizer={"rate": float("inf"), "warmup": 0.0}, steps=3)
    with pytest.raises(TrainingError, match="the network is of no use: 2 had no finite gradient"):
        pretrain(run)
    assert json.loads((Path(run.out) / "status.json").read_text())["state"] == "failed"


def test_a_store_twice_is_refused(make_run: MakeRun) -> None:
    """Shares draw one more often; twice the same samples would be no epoch."""
    run = make_run()
    with pytest.raises(ValueError, match="names a store twice"):
        pretrain(replace(run, data=replace(run.data, store=run.data.stores * 2)))


def test_training_lowers_the_loss_below_the_mean_of_each_band(make_run: MakeRun, make_store: MakeStore) -> None:
    """On held-out samples, by validation as logged; synthetic texture is mostly noise (test_learning has ground)."""
    run = make_run(
        steps=300,
        optimizer={"rate": 0.1},
        watch={"validate": 150, "log": 50},
        data={"batch_size": 8, "store": str(make_store(n=120))},
    )
    pretrain(run)
    found = read_log(run.out, "validation")
    assert [entry["step"] for entry in found] == [150, 300]
    last = found[-1]
    assert number(last, "loss") < 0.97 * number(last, "baseline")
    assert number(last, "skill") == pytest.approx(1 - number(last, "loss") / number(last, "baseline"))


def test_validation_is_the_ratio_of_sums_over_all_held_out_samples(make_run: MakeRun) -> None:
    """As computed sample by sample from the final checkpoint; strata add up to the whole."""
    run = make_run(watch={"validate": 100})
    pretrain(run)
    logged = read_log(run.out, "validation")[-1]
    store = Store.open(run.data.stores[0])
    rows = np.flatnonzero(store.column("split") == 1)
    trained = load_trained(run.out)
    preparation = trained.preparation(run.task, run.seed)
    total = weight = base = 0.0
    with torch.no_grad():
        for member, row in enumerate(rows):
            batch = batch_of([store.sample(int(row))])
            batch = replace(batch, sample=torch.tensor([member]))
            prepared = preparation(batch, train=False)
            errors = errors_of(trained.model, prepared, run.task).sum()
            total, weight = total + float(errors.total), weight + float(errors.weight)
            base += float(baseline_errors(prepared, run.task).total)
    assert logged["samples"] == len(rows)
    assert number(logged, "loss") == pytest.approx(total / weight, rel=1e-5)
    assert number(logged, "baseline") == pytest.approx(base / weight, rel=1e-5)
    strata = logged["strata"]
    assert isinstance(strata, dict)
    assert sum(part["samples"] for part in strata.values()) == len(rows)


def test_a_users_probe_is_called(make_run: MakeRun) -> None:
    """Every so many steps and at the end, with the encoder; its numbers are in the log."""
    calls: list[int] = []

    def probe(encoder: Encoder, step: int) -> Mapping[str, float]:
        calls.append(step)
        return {"depth": float(len(encoder.blocks))}

    run = make_run(watch={"probe": 5, "probe_samples": 30})
    pretrain(run, probes=[probe])
    assert calls == [5, 10, 12]
    assert [entry["depth"] for entry in read_log(run.out, "own_probe")] == [2.0, 2.0, 2.0]


def test_the_log_says_what_a_run_was(make_run: MakeRun) -> None:
    """Samples, epochs, rates, pace; numbers a reader can add up."""
    run = make_run()
    pretrain(run, progress=Progress(None))
    log = read_log(run.out)
    assert [entry["event"] for entry in log] == ["start", *["train"] * 12, "end"]
    entry = log[6]
    assert entry["samples"] == 4 * 6
    members = len(np.flatnonzero(Store.open(run.data.stores[0]).column("split") == 0))
    assert number(entry, "epoch") == pytest.approx(24 / members)
    assert math.isfinite(number(entry, "gradient"))
    assert number(entry, "utilisation") > 0
    assert log[0]["samples"] == members


def test_differences_name_fields_but_those_of_the_machine(make_run: MakeRun) -> None:
    """A list of changes, empty where only the machine differs."""
    one = make_run()
    other = make_run(data={"threads": 7}, watch={"log": 9}, out="elsewhere", device="auto")
    assert differences(flat(one), flat(other)) == []
    assert differences(flat(one), flat(make_run(seed=4))) == ["seed: 3 → 4"]


def test_a_stop_amid_a_look_repeats_the_look(make_run: MakeRun, tmp_path: Path) -> None:
    """The checkpoint is there, and the look comes first when the run goes on; nothing is missing in the log."""
    changes = {"watch": {"validate": 6}}
    whole, parts = make_run(**changes), make_run(**changes, out=str(tmp_path / "parts"))
    pretrain(whole)
    # Asked once per step; the next question is within the look after step 6.
    assert pretrain(parts, stop=StopAt(6)) == "interrupted"
    assert open_checkpoint(parts.out).step == 6
    assert read_log(parts.out, "validation") == []
    assert pretrain(parts) == "finished"
    curves = [[(e["step"], e["loss"]) for e in read_log(run.out, "validation")] for run in (whole, parts)]
    assert curves[0] == curves[1]


def test_parts_of_a_step_may_be_cut_otherwise_later(make_run: MakeRun, tmp_path: Path) -> None:
    """As on another number of GPUs: the samples of each step stay, losses within rounding."""
    whole = make_run(data={"batch_size": 6})
    parts = make_run(data={"batch_size": 6, "accumulate": 3}, out=str(tmp_path / "parts"))
    pretrain(whole)
    pretrain(parts, stop=StopAt(4))
    pretrain(replace(parts, data=replace(parts.data, accumulate=1)))
    assert [e["loss"] for e in read_log(parts.out, "train")] == pytest.approx(
        [e["loss"] for e in read_log(whole.out, "train")], rel=1e-4
    )


def test_a_kill_before_the_first_checkpoint_begins_anew(make_run: MakeRun) -> None:
    """The log holds every step once."""
    run = make_run()

    with pytest.raises(Killed):
        pretrain(run, stop=KillAt(6))
    pretrain(run)
    assert [e["step"] for e in read_log(run.out, "train")] == list(range(1, 13))


def test_validation_weighs_by_design(make_run: MakeRun, make_store: MakeStore, tmp_path: Path) -> None:
    """With the weights of samples.parquet, and intervals between blocks where it has them; the average beside it."""
    data = write_dataset(tmp_path / "data", [make_store(n=60)])
    table = pq.read_table(data / "samples.parquet")
    blocks = pa.array([at // 6 for at in range(table.num_rows)])
    pq.write_table(table.append_column("block", blocks), data / "samples.parquet")
    run = make_run(data={"store": str(data)}, watch={"validate": 12}, model={"average": 0.5})
    pretrain(run)
    logged = read_log(run.out, "validation")[-1]
    store = Store.open(data / "store.zarr")
    rows = np.flatnonzero(store.column("split") == 1)
    for weights, name in (("last", "loss"), ("average", "average_loss")):
        trained = load_trained(run.out, weights)  # type: ignore[arg-type]
        preparation = trained.preparation(run.task, run.seed)
        total = weight = 0.0
        with torch.no_grad():
            for member, row in enumerate(rows):
                batch = replace(batch_of([store.sample(int(row))]), sample=torch.tensor([member]))
                errors = errors_of(trained.model, preparation(batch, train=False), run.task).sum()
                total += (row + 1.0) * float(errors.total)
                weight += (row + 1.0) * float(errors.weight)
        assert number(logged, name) == pytest.approx(total / weight, rel=1e-5)
    assert logged["intervals"] == "blocks"
    assert number(logged, "low") < number(logged, "loss") < number(logged, "high")


def test_other_design_weights_in_the_loss_are_refused(make_run: MakeRun, make_store: MakeStore, tmp_path: Path) -> None:
    """They would make another loss; where they act in no loss, only a word is said."""
    data = write_dataset(tmp_path / "data", [make_store()])
    weighed = make_run(data={"store": str(data), "weighting": "loss"})
    plain = make_run(data={"store": str(data)}, out=str(tmp_path / "plain"))
    for run in (weighed, plain):
        pretrain(run, stop=StopAt(4))
    table = pq.read_table(data / "samples.parquet")
    at = table.schema.get_field_index("weight")
    doubled = pa.array([2.0 + index for index in range(table.num_rows)])
    pq.write_table(table.set_column(at, "weight", doubled), data / "samples.parquet")
    with pytest.raises(ValueError, match="other design weights"):
        pretrain(weighed)
    assert pretrain(plain) == "finished"


def test_a_weighted_order_and_shares_are_trained_on(make_run: MakeRun, make_store: MakeStore, tmp_path: Path) -> None:
    """And resumed bit by bit."""
    places = [str(write_dataset(tmp_path / name, [make_store(seed=seed)])) for name, seed in (("a", 1), ("b", 4))]
    data = {"store": places, "shares": [3.0, 1.0], "weighting": "order"}
    whole, parts = make_run(data=data), make_run(data=data, out=str(tmp_path / "parts"))
    pretrain(whole)
    pretrain(parts, stop=StopAt(5))
    pretrain(parts)
    assert losses(parts) == losses(whole)


def test_what_is_secret_in_addresses_is_not_written_down(make_run: MakeRun) -> None:
    """User, password and query are left out; paths stay as they are."""
    run = make_run(data={"store": ["https://me:word@host/data?sig=secret", "s3://bucket/data", "some/folder"]})
    assert shown(run).data.store == ["https://host/data", "s3://bucket/data", "some/folder"]
    assert differences(flat(run), flat(shown(run))) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"epochs": -1.0}, "epochs must be above 0"),
        ({"data": {"batch_size": 5, "accumulate": 2}}, "multiple of data.accumulate"),
        ({"model": {"average": 1.5}}, "model.average must be between 0 and 1, or null, got 1.5"),
        ({"optimizer": {"clip": 0.0}}, "optimizer.clip must be above 0, or null, got 0"),
        ({"watch": {"validate": -1}}, "watch.validate must be at least 1, or 0 for never, got -1"),
        ({"data": {"store": []}}, "names no dataset"),
        ({"data": {"shares": [1.0, 0.0]}}, "data.shares must be numbers above 0"),
        ({"optimizer": {"shape": "constant", "warmup": 0.9}}, "together they may be 1"),
        ({"out": ""}, "out is empty"),
        ({"repeats": 1025}, "repeats must be from 1 to 1024, got 1025"),
        ({"task": {"size": 0}}, "task.size must be at least 1, got 0"),
        ({"optimizer": {"warmup": 2.0}}, "optimizer.warmup must be a share of the steps"),
    ],
)
def test_settings_check_themselves(make_run: MakeRun, changes: dict[str, object], message: str) -> None:
    """Each rule names the field, its value and what would be right."""
    with pytest.raises(ValueError, match=message):
        make_run(**changes)
