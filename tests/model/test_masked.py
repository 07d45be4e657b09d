"""What a network is asked: the same for a sample in any company, over valid pixels only, and learnable."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from geofm_model import Store, StoreError
from geofm_model.loading import Batch, Loader
from geofm_model.models import DecoderConfig, EncoderConfig, MaskedAutoencoder, Patching, chosen, patches
from geofm_model.training.masked import MaskedTask, Preparation, Prepared, baseline_errors, errors_of, year_and_day
from geofm_model.training.pixel_statistics import pixel_statistics
from geofm_model.training.schedules import Schedule, decaying, peak_rate

from .conftest import MakeStore

PATCHING = Patching(size=4)
TASK = MaskedTask(size=12, ratio=0.7, flip="both")


def small(*, metadata: bool = False) -> MaskedAutoencoder:
    torch.manual_seed(0)
    encoder = EncoderConfig(width=48, depth=2, heads=4, patching=PATCHING, metadata=metadata)
    return MaskedAutoencoder(encoder, DecoderConfig(width=48, depth=1, heads=4))


def loader(store: Path, batch_size: int = 6) -> Loader:
    return Loader(store, batch_size=batch_size, seed=1)


def preparation(task: MaskedTask = TASK, *, metadata: bool = False, seed: int = 0, device: str = "cpu") -> Preparation:
    """With statistics near the synthetic store's."""
    mean, std = torch.full((6,), 1500.0, device=device), torch.full((6,), 800.0, device=device)
    return Preparation(task=task, patching=PATCHING, mean=mean, std=std, seed=seed, metadata=metadata)


def prepared(
    batch: Batch, task: MaskedTask = TASK, *, metadata: bool = False, repeat: int = 0, train: bool = True
) -> Prepared:
    return preparation(task, metadata=metadata)(batch, repeat=repeat, train=train)


@given(days=st.integers(-200_000, 200_000))
def test_days_are_years_and_days_of_the_year(days: int) -> None:
    """As Python's calendar has them."""
    when = date(1970, 1, 1) + timedelta(days=days)
    year, day = year_and_day(torch.tensor([[days]], dtype=torch.int32))
    assert (int(year), int(day)) == (when.year, when.timetuple().tm_yday - 1)


@pytest.mark.parametrize("train", [True, False])
def test_a_sample_is_prepared_alike_in_any_company(store: Path, train: bool) -> None:
    """Views, masks and metadata of a sample are the same in batches of six and of one; evaluation knows no epoch."""
    whole = next(iter(loader(store)))
    many = prepared(whole, train=train, metadata=True)
    for at in (0, 3, 5):
        one = Batch(
            **{name: getattr(whole, name)[at : at + 1] for name in vars(whole) if name != "rule"}, rule=whole.rule
        )
        alone = prepared(one, train=train, metadata=True)
        for name in ("vectors", "valid"):
            assert torch.equal(getattr(alone, name)[0], getattr(many, name)[at])
        assert torch.equal(alone.plan.seen[0], many.plan.seen[at])
        assert many.metadata is not None
        assert alone.metadata is not None
        assert torch.equal(alone.metadata.kept[0], many.metadata.kept[at])
    later = Batch(**{**vars(whole), "epoch": whole.epoch + 1})
    assert torch.equal(prepared(later, train=train).plan.seen, many.plan.seen) is not train
    assert not torch.equal(preparation(seed=1)(whole, train=train).plan.seen, many.plan.seen)


def test_what_is_not_valid_is_zero_and_counts_nothing(store: Path) -> None:
    """Cloud and fill are 0 in what the network sees, and neither they nor seen tokens are in the errors."""
    batch = next(iter(loader(store)))
    found = prepared(batch)
    assert bool((found.vectors[~found.valid] == 0).all())
    assert 0.05 < found.valid.float().mean() < 1
    torch.manual_seed(0)
    model = MaskedAutoencoder(
        EncoderConfig(width=32, depth=1, heads=2, patching=PATCHING), DecoderConfig(width=32, depth=1, heads=2)
    )
    errors = errors_of(model, found, TASK)
    hidden = torch.gather(found.valid, 1, found.plan.hidden[..., None].expand(-1, -1, PATCHING.numbers))
    assert torch.equal(errors.weight, hidden.sum(dim=(1, 2)).float())
    weights = torch.arange(6.0)
    weighted = errors_of(model, found, TASK, weights)
    torch.testing.assert_close(weighted.total, weights * errors.total)
    assert torch.equal(weighted.weight, weights * found.counted())


@pytest.mark.parametrize("ratio", [0.0, 0.7])
def test_dropped_bands_are_asked_of_every_token(store: Path, ratio: float) -> None:
    """Of seen tokens their dropped bands, of hidden ones all; what is counted is known before the network runs."""
    task = replace(TASK, ratio=ratio, drop_bands=2)
    found = prepared(next(iter(loader(store))), task)
    dropped = found.plan.dropped
    assert dropped is not None
    asked = dropped[:, None].expand(-1, found.valid.shape[1], -1).repeat(1, 1, 16)
    if ratio:
        asked = asked.scatter(1, found.plan.hidden[..., None].expand(-1, -1, 96), torch.ones_like(asked))
    wanted = asked & found.valid
    assert torch.equal(found.counted(), wanted.sum(dim=(1, 2)).float())
    baseline = baseline_errors(found, task)
    torch.testing.assert_close(baseline.total, (found.vectors.square() * wanted).sum(dim=(1, 2)))
    assert torch.equal(baseline.weight, found.counted())
    errors = errors_of(small(), found, task)
    assert torch.equal(errors.weight, baseline.weight)
    assert bool((errors.total != baseline.total).all())


def test_the_baseline_is_the_mean(store: Path) -> None:
    """Of bands: squares of normalised pixels; with normalised targets about 1, less one pixel's share of a patch."""
    found = prepared(next(iter(loader(store))))
    hidden = chosen(found.vectors, found.plan.hidden), chosen(found.valid, found.plan.hidden)
    torch.testing.assert_close(baseline_errors(found, TASK).mean(), hidden[0][hidden[1]].square().mean())
    normal = float(baseline_errors(found, replace(TASK, normalise=True)).mean())
    assert 0.9 < normal < 1


def on_meta(batch: Batch, count: int) -> Batch:
    """The first samples of a batch on a device that knows shapes only."""
    fields = {name: getattr(batch, name)[:count] for name in vars(batch) if name != "rule"}
    return Batch(**fields, rule=batch.rule).to("meta")


class Calls(TorchDispatchMode):
    """Counts operations of torch."""

    count = 0

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
    ) -> object:
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_nobody_waits_for_the_device(store: Path) -> None:
    """A device without data prepares and counts errors: no value is asked of it; and more samples are no more calls."""
    batch = next(iter(loader(store)))
    task = replace(TASK, drop_bands=1, dates=2, masking="space-time")
    model, counts = small(metadata=True).to("meta"), []
    for count in (6, 2, 6):  # positions are made at first
        part = on_meta(batch, count)
        with Calls() as calls:
            found = preparation(task, metadata=True, device="meta")(part)
            errors = errors_of(model, found, task, torch.ones(count, device="meta"))
            (errors.mean() / baseline_errors(found, task).sum().mean() / found.counted().sum()).backward()
        counts.append(calls.count)
        assert found.vectors.shape == (count, 18, 96)
        assert found.vectors.is_meta
    assert counts[1] == counts[2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ratio": 0}, "ratio of 0 with 0 bands dropped leaves nothing"),
        ({"ratio": 1.0, "drop_bands": 2}, "ratio of 1.0 with 2 bands"),
        ({"drop_bands": -1}, "got -1 and 0.1"),
        ({"metadata_drop": 1.5}, "got 0 and 1.5"),
        ({"drop_bands": 6}, "fewer bands to drop; got 6, 6 and 6"),
    ],
)
def test_tasks_that_cannot_be(options: dict[str, float], words: str) -> None:
    """Nothing to see or to predict, chances that are none: said when a run is described."""
    with pytest.raises(ValueError, match=words):
        preparation(replace(TASK, **options))  # type: ignore[arg-type]


def test_a_look_too_many_is_refused(store: Path) -> None:
    """Its random numbers would be those of a sample's second turn."""
    with pytest.raises(ValueError, match="choose 0 to 1023"):
        prepared(next(iter(loader(store))), repeat=1024)


def test_a_second_turn_is_looked_at_anew(store: Path) -> None:
    """Crop, flip and mask of a sample's second occurrence in an epoch are its own, and those of its first stay."""
    batch = next(iter(loader(store)))
    again = Batch(**{**vars(batch), "turn": batch.turn + 1})
    one, other = prepared(batch), prepared(again)
    assert not torch.equal(one.plan.seen, other.plan.seen)
    assert not torch.equal(one.vectors, other.vectors)
    assert torch.equal(prepared(again, train=False).plan.seen, prepared(batch, train=False).plan.seen)


def test_metadata_are_withheld_from_a_tenth(store: Path) -> None:
    """Of 600 preparations 60 ± 4 standard deviations; none in evaluation."""
    batch = next(iter(loader(store)))
    kept = [prepared(batch, repeat=r, metadata=True).metadata for r in range(100)]
    dropped = sum(int((~found.kept).sum()) for found in kept if found is not None)
    assert abs(dropped - 60) < 4 * 7.4
    calm = prepared(batch, train=False, metadata=True).metadata
    assert calm is not None
    assert bool(calm.kept.all())


def test_a_network_learns(store: Path) -> None:
    """In 150 steps a small network knows the hidden pixels of a batch far better than the mean of each band does."""
    stream = loader(store, batch_size=8)
    mean, std = pixel_statistics(stream.members).tensors()
    found = Preparation(task=TASK, patching=PATCHING, mean=mean, std=std, seed=0)(next(iter(stream)), train=False)
    model = small()
    optimizer = torch.optim.AdamW(decaying(model, 0.05), lr=3e-3)  # type: ignore[arg-type]
    for _ in range(150):
        loss = errors_of(model, found, TASK).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float(loss.detach()) < 0.3 * float(baseline_errors(found, TASK).mean())


def test_statistics_are_those_of_all_valid_training_pixels(make_store: MakeStore) -> None:
    """Pooled over two stores by pixels, or by shares."""
    places = [make_store(seed=1), make_store(seed=4, n=30)]
    members = Loader(places, batch_size=4).members
    values: list[list[np.ndarray[tuple[int], np.dtype[np.float64]]]] = []
    for store in map(Store.open, places):
        rows = np.flatnonzero(store.column("split") == 0)
        samples = [store.sample(int(row)) for row in rows]
        values.append([np.concatenate([s.image[:, b][s.valid()] for s in samples]).astype(float) for b in range(6)])
    pooled = pixel_statistics(members)
    shared = pixel_statistics(members, shares=[3, 1])
    for b in range(6):
        both = np.concatenate([values[0][b], values[1][b]])
        assert pooled.mean[b] == pytest.approx(both.mean())
        assert pooled.std[b] == pytest.approx(both.std())
        mean = 0.75 * values[0][b].mean() + 0.25 * values[1][b].mean()
        second = 0.75 * (values[0][b] ** 2).mean() + 0.25 * (values[1][b] ** 2).mean()
        assert shared.mean[b] == pytest.approx(mean)
        assert shared.std[b] == pytest.approx((second - mean**2) ** 0.5)
    mean_of, std_of = pooled.tensors()
    assert (mean_of.dtype, std_of.shape) == (torch.float32, (6,))


def test_a_split_without_pixels_is_an_error(store: Path) -> None:
    """There is nothing to learn from."""
    members = Loader(store, batch_size=4).members
    with pytest.raises(StoreError, match="no valid pixel"):
        pixel_statistics(members, shares=[0])


@given(
    steps=st.integers(1, 300),
    warmup=st.integers(0, 299),
    cooldown=st.floats(0, 1),
    shape=st.sampled_from(["cosine", "constant"]),
)
def test_schedules_rise_and_fall(steps: int, warmup: int, cooldown: float, shape: str) -> None:
    """Up to 1 in the warm-up, never up afterwards, down to the least value; nothing else is accepted."""
    warmup %= steps
    schedule = Schedule(steps=steps, warmup=warmup, cooldown=cooldown, shape=shape, least=0.1)  # type: ignore[arg-type]
    factors = np.array([schedule.factor(step) for step in range(steps)])
    assert (np.diff(factors[: warmup + 1]) > 0).all()
    assert factors[warmup] == 1
    assert (np.diff(factors[warmup:]) <= 1e-12).all()
    assert ((factors > 0) & (factors <= 1)).all()
    assert schedule.factor(steps) == pytest.approx(1.0 if shape == "constant" and not round(steps * cooldown) else 0.1)
    assert schedule.factor(2 * steps) == schedule.factor(steps)
    with pytest.raises(ValueError, match="a schedule needs"):
        Schedule(steps=steps, warmup=steps)


def test_biases_norms_and_tokens_do_not_decay() -> None:
    """Two groups that hold every weight once."""
    model = MaskedAutoencoder(
        EncoderConfig(width=32, depth=1, heads=2, patching=PATCHING, metadata=True),
        DecoderConfig(width=32, depth=1, heads=2),
    )
    groups = decaying(model, 0.05)
    sizes = [sum(parameter.numel() for parameter in group["params"]) for group in groups]  # type: ignore[attr-defined]
    assert sum(sizes) == sum(parameter.numel() for parameter in model.parameters())
    names = {name for name, parameter in model.named_parameters() if any(parameter is p for p in groups[1]["params"])}  # type: ignore[attr-defined]
    assert {"encoder.cls", "decoder.hidden", "encoder.positions.date.scale"} <= names
    assert all("weight" not in name or "norm" in name for name in names)
    assert peak_rate(1.5e-4, 3840) == pytest.approx(2.25e-3)


def test_patches_of_validity_are_those_of_pixels(store: Path) -> None:
    """A pixel is valid in all bands or in none."""
    found = prepared(next(iter(loader(store))))
    by_band = found.valid.reshape(*found.valid.shape[:2], -1, 6)
    assert torch.equal(by_band.all(-1), by_band.any(-1))
    assert patches(torch.zeros(1, 2, 6, 12, 12), PATCHING).shape[1:] == found.vectors.shape[1:]
