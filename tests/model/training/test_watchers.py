"""Probes, labels, pictures and pace: what a run tells of itself is what is there."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from geofm_model import Store
from geofm_model.loading import gather
from geofm_model.training.labels import labels_of
from geofm_model.training.pretrain import pretrain
from geofm_model.training.progress import Progress
from geofm_model.training.reconstruction import batch_of, reconstruct_batch
from geofm_model.training.runlog import read_log
from geofm_model.training.throughput import Stopwatch, matmul_rate, peak_flops
from geofm_model.training.trained import load_trained

from .conftest import MakeRun, MakeStore, write_dataset


def table(path: Path, **columns: object) -> str:
    """A Parquet file."""
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_labels_are_classes_or_values(store: Path, tmp_path: Path) -> None:
    """Words and whole numbers are numbered, other numbers stay; units without a label are left out."""
    members = gather([store])
    unit = members.unit
    words = labels_of(table(tmp_path / "w.parquet", unit=unit[:3], label=["b", "a", "b"]), [str(store)], members)
    everyone = np.arange(len(members))
    there, values = words.of(members, everyone)
    assert there.tolist() == [True] * 3 + [False] * (len(unit) - 3)
    assert values.tolist() == [1, 0, 1]
    numbers = table(tmp_path / "n.parquet", unit=unit[:3], label=[0.5, None, 2.0])
    there, values = labels_of(numbers, [str(store)], members).of(members, everyone[:3])
    assert (there.tolist(), values.tolist()) == ([True, False, True], [0.5, 2.0])
    strata = labels_of(None, [str(store)], members)
    assert strata.name == "stratum"
    assert np.array_equal(strata.of(members, everyone)[1], members.column("stratum"))


def test_labels_of_two_datasets_are_their_own(make_store: MakeStore, tmp_path: Path) -> None:
    """The same unit may be in both; a word is one class in both, a stratum is not."""
    places = [write_dataset(tmp_path / name, [make_store(seed=seed)]) for name, seed in (("a", 1), ("b", 4))]
    for place, words in zip(places, (["x", "y", "z"], ["z", "x", "w"]), strict=True):
        rows = pq.read_table(place / "samples.parquet")
        told = pa.array([words[at % 3] for at in range(rows.num_rows)])
        pq.write_table(rows.append_column("cover", told), place / "samples.parquet")
    members = gather(places)
    names = [str(place) for place in places]
    there, values = labels_of("cover", names, members).of(members, np.arange(len(members)))
    assert there.all()
    wanted = [
        "wxyz".index((["x", "y", "z"], ["z", "x", "w"])[members.dataset[members.store[at]]][int(members.row[at]) % 3])
        for at in range(len(members))
    ]
    assert values.tolist() == wanted
    _, strata = labels_of("stratum", names, members).of(members, np.arange(len(members)))
    first = np.asarray(members.dataset)[members.store] == 0
    assert not set(strata[first]) & set(strata[~first])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"unit": [1]}, "no column label"),
        ({"unit": [1], "label": pa.array([None], pa.string())}, "no label at all"),
        ({"unit": ["a"], "label": ["x"]}, "has units of type string"),
    ],
)
def test_labels_that_are_none(store: Path, tmp_path: Path, columns: dict[str, object], message: str) -> None:
    """A missing file, column or value is named."""
    members = gather([store])
    with pytest.raises(ValueError, match=message):
        labels_of(table(tmp_path / "l.parquet", **columns), [str(store)], members)
    with pytest.raises(ValueError, match=r"none.parquet cannot be read \(No such file"):
        labels_of(str(tmp_path / "none.parquet"), [str(store)], members)
    (tmp_path / "table.parquet").write_text("unit,label\n1,a\n")
    with pytest.raises(ValueError, match=r"table.parquet is no Parquet file"):
        labels_of(str(tmp_path / "table.parquet"), [str(store)], members)
    with pytest.raises(ValueError, match=r"not every dataset has a samples\.parquet"):
        labels_of("biome", [str(store)], members)


def test_labels_of_other_data_are_refused_before_the_first_step(
    make_run: MakeRun, make_store: MakeStore, tmp_path: Path
) -> None:
    """A file whose units are not among the samples, or only among those of one split: nothing is trained or left."""
    run = make_run(data={"store": str(make_store(n=150))}, watch={"probe": 12})
    store = Store.open(run.data.stores[0])
    trained = store.column("unit")[store.column("split") == 0]
    for units, split in ((np.arange(20, dtype=np.uint64), "training"), (trained, "held-out")):
        labels = table(tmp_path / "l.parquet", unit=units, label=["a"] * len(units))
        with pytest.raises(ValueError, match=rf"l\.parquet has a label for none of the [\d,]+ {split} samples"):
            pretrain(replace(run, watch=replace(run.watch, labels=labels)))
        assert not Path(run.out).exists()


@pytest.mark.parametrize(("kept", "ending"), [(2, "have a label to probe for\n"), (30, "a probe needs 10 of either\n")])
def test_it_is_said_how_many_samples_have_a_label(
    make_run: MakeRun, make_store: MakeStore, tmp_path: Path, kept: int, ending: str
) -> None:
    """Before the first step, where not all have one; no pixel is read for it."""
    run = make_run(data={"store": str(make_store(n=150))}, watch={"probe": 12}, steps=1)
    store = Store.open(run.data.stores[0])
    split, said = store.column("split"), io.StringIO()
    units = [store.column("unit")[split == number] for number in (0, 1)]
    some = np.concatenate([of[::kept] for of in units])
    labels = table(tmp_path / "l.parquet", unit=some, label=["ab"[at % 2] for at in range(len(some))])
    pretrain(replace(run, watch=replace(run.watch, labels=labels)), progress=Progress(said))
    counts = [f"{len(of[::kept])} of {len(of)}" for of in units]
    first = said.getvalue().splitlines(keepends=True)[0]
    assert first.startswith(f"{counts[0]} training and {counts[1]} held-out samples")
    assert first.endswith(ending)


def test_labels_without_a_probe_are_not_used_and_that_is_said(make_run: MakeRun) -> None:
    """A setting that has no effect is named."""
    said = io.StringIO()
    pretrain(make_run(watch={"labels": "stratum"}, steps=1), progress=Progress(said))
    assert "watch.labels is not used: watch.probe is 0" in said.getvalue()


def test_a_probe_for_values(make_run: MakeRun, make_store: MakeStore, tmp_path: Path) -> None:
    """R² of the mean of a sample's first band, which a network's features tell."""
    run = make_run(data={"store": str(make_store(n=150))})
    store = Store.open(run.data.stores[0])
    rows = store.readable
    level = [float(store.sample(int(row)).image[:, 3].astype(float).mean()) for row in rows]
    labels = table(tmp_path / "level.parquet", unit=store.column("unit")[rows], label=level)
    run = make_run(
        data={"store": run.data.store}, watch={"probe": 12, "labels": labels, "probe_samples": 100}, task={"size": 16}
    )
    pretrain(run)
    found = read_log(run.out, "probe")[-1]
    assert isinstance(found["linear_r2"], float)
    assert found["linear_r2"] > 0.5


def test_a_probe_for_classes(make_run: MakeRun, make_store: MakeStore) -> None:
    """kNN, a linear probe and the rank, beside the most frequent class."""
    run = make_run(data={"store": str(make_store(n=150))}, watch={"probe": 12})
    pretrain(run)
    found = read_log(run.out, "probe")[-1]
    assert found["labels"] == "stratum"
    assert isinstance(found["samples"], int)
    assert found["samples"] > 30
    assert {"knn", "linear", "majority", "rank"} <= set(found)


def test_a_reconstruction_is_the_networks_own(make_run: MakeRun) -> None:
    """In counts: predictions are where nothing was shown, and their errors give the loss that stands above."""
    run = make_run()
    pretrain(run)
    trained = load_trained(run.out)
    store = Store.open(run.data.stores[0])
    samples = [store.sample(int(row)) for row in store.readable[:3]]
    preparation = trained.preparation(run.task, seed=5)
    found = reconstruct_batch(trained.model, batch_of(samples), preparation, bands=store.header.bands)
    std = preparation.std.numpy()[None, :, None, None]
    for one, sample in zip(found, samples, strict=True):
        view = sample.image[:, :, 2:14, 2:14]
        np.testing.assert_array_equal(one.image, view)
        counted = one.valid[:, None] & ~one.shown
        errors = ((one.predicted - one.image) / std)[counted] ** 2
        assert errors.mean() == pytest.approx(one.loss, rel=1e-3)
        mean = preparation.mean.numpy()[None, :, None, None]
        assert (((one.image - mean) / std)[counted] ** 2).mean() == pytest.approx(one.baseline, rel=1e-3)


def test_a_reconstruction_of_normalised_targets_is_in_counts(make_run: MakeRun) -> None:
    """A network that predicts 0 then predicts each patch's own mean."""
    run = make_run(task={"normalise": True})
    pretrain(run)
    trained = load_trained(run.out)
    with torch.no_grad():
        trained.model.decoder.predict.weight.zero_()
        trained.model.decoder.predict.bias.zero_()
    store = Store.open(run.data.stores[0])
    sample = store.sample(int(store.readable[0]))
    preparation = trained.preparation(run.task, seed=5)
    one = reconstruct_batch(trained.model, batch_of([sample]), preparation, bands=store.header.bands)[0]
    patch = (slice(0, 4), slice(0, 4))
    for t in range(one.image.shape[0]):
        valid = one.valid[t][patch]
        if valid.any() and not one.seen[t, 0][patch].any():
            mean = one.image[t][(slice(None), *patch)][:, valid] / preparation.std.numpy()[:, None]
            guess = one.predicted[t][(slice(None), *patch)][:, valid] / preparation.std.numpy()[:, None]
            offset = preparation.mean.numpy() / preparation.std.numpy()
            assert (guess - offset[:, None]).std() < 1e-3
            assert float((guess - offset[:, None]).mean()) == pytest.approx(
                float((mean - offset[:, None]).mean()), abs=1e-3
            )


def test_pace_counts_samples_work_and_waiting() -> None:
    """By a clock of our own; what was paused does not count."""
    now = [0.0]
    watch = Stopwatch(flops=10.0, peak=50.0, devices=2, clock=lambda: now[0])
    watch.done(20)
    watch.waited(1.0)
    now[0] = 7.0
    watch.pause(3.0)
    pace = watch.look()
    assert (pace.samples_per_second, pace.utilisation, pace.data_wait) == (5.0, 0.5, 0.25)
    now[0] = 8.0
    assert watch.look().samples_per_second == 0


def test_a_device_has_a_peak() -> None:
    """Measured where no data sheet is known; torch's own random numbers are left alone."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    rate, source = peak_flops(torch.device("cpu"), "float32")
    assert rate > 1e8
    assert "measured" in source
    assert torch.equal(torch.get_rng_state(), before)
    assert matmul_rate(torch.device("cpu"), "bf16", size=64, seconds=0.01) > 1e6
