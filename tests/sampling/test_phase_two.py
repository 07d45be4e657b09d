"""Phase 2 with information, held-out ground and further waves: probabilities that estimate without bias."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from geofm_sampling import (
    LOOK,
    Design,
    Look,
    anchor_days,
    build_frame,
    draw_master,
    fit_strata,
    next_wave,
    plan_record,
    respond,
    table_digest,
)
from geofm_sampling.blocks import draw_split
from geofm_sampling.hashing import hashed_uniform
from geofm_sampling.phase_two import descriptor_matrix
from geofm_sampling.plan import PlanRecord
from geofm_sampling.response import LOOKED
from geofm_sampling.weights import Looks, wave_shares

Cells = Callable[..., pa.Table]
DESIGN = Design(years=(2022,), samples=90, timesteps=1, seed=1, information=True)


@pytest.fixture(scope="module")
def frame(make_cells: Cells) -> pa.Table:
    """One tile, one year, nine strata or so."""
    cells = make_cells(("10SFE",))
    return build_frame(cells, fit_strata(cells, seed=1), years=(2022,), chip_size=256)


def _is_clear(units: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """A fixed part of the units, two thirds of them, is observable."""
    return hashed_uniform(99, "clear", units) < 0.67


def _value(units: NDArray[np.uint64]) -> NDArray[np.float64]:
    """What is to be estimated: skewed, and tied to the entropy that makes units likely."""
    return np.exp(2.0 * hashed_uniform(98, "entropy", units)) + hashed_uniform(97, "noise", units)


def _look(frame: pa.Table) -> Look:
    """One granule in the middle of each season, clear or not by the unit."""

    def look(units: NDArray[np.uint64]) -> pa.Table:
        day = anchor_days(frame, units)[0] + 10
        shares = np.where(_is_clear(units), 1.0, 0.0).astype(np.float32)
        columns = [units, [f"g{d}" for d in day], day.astype(np.int32), np.ones(units.size, np.float32), shares]
        return pa.table(dict(zip(LOOK.columns, columns, strict=True)), schema=LOOK.schema())

    return look


def _inform(units: NDArray[np.uint64], granules: pa.Array) -> pa.Table:
    """Entropy by hash; descriptors on a coarse grid, so that many units look alike; one in twenty is blind."""
    assert len(granules) == units.size
    entropy = (1 + 4 * hashed_uniform(98, "entropy", units)).astype(np.float32)
    kind = np.floor(6 * hashed_uniform(96, "kind", units)) / 10
    blind = hashed_uniform(95, "blind", units) < 0.05
    lists = [[] if b else [float(k), 0.1] for k, b in zip(kind, blind, strict=True)]
    entropy[blind] = np.nan
    return pa.table({"unit": units, "entropy": entropy, "descriptor": pa.array(lists, pa.list_(pa.float32()))})


def _drawn(table: pa.Table, split: int = 0) -> pa.Table:
    keep = (table["state"].to_numpy(zero_copy_only=False) == "drawn") & (table["split"].to_numpy() == split)
    return table.filter(pa.array(keep))


def _total(table: pa.Table) -> float:
    return float((_value(table["unit"].to_numpy()) / table["pi_star"].to_numpy()).sum())


def test_sizes_become_probabilities(frame: pa.Table) -> None:
    """Every observable unit has 0 < π₂ ≤ 1, they add up to the drawn units of each group, and size decides them."""
    found = respond(draw_master(frame, DESIGN), frame, DESIGN, _look(frame), inform=_inform)
    table = found.table
    seen = table["observable"].to_numpy(zero_copy_only=False)
    pi2, size, stratum = (table[n].to_numpy() for n in ("pi2_given_phase1", "size", "stratum"))
    assert np.all((pi2[seen] > 0) & (pi2[seen] <= 1))
    assert not pi2[~seen].any()
    drawn = np.bincount(_drawn(table)["stratum"].to_numpy(), minlength=stratum.max() + 1)
    assert np.bincount(stratum, weights=pi2, minlength=drawn.size) == pytest.approx(drawn)
    free = seen & (pi2 < 1)
    for h in np.unique(stratum[free]):
        ratio = (pi2 / np.maximum(size, 1e-9))[free & (stratum == h)]
        assert ratio == pytest.approx(ratio[0], rel=1e-5)
    assert drawn.sum() == DESIGN.samples
    assert np.isfinite(found.strata["spread"].to_numpy()[np.unique(stratum)]).all()
    assert any("say nothing" in sentence for sentence in found.said)


def test_look_alikes_are_less_likely_and_none_is_impossible(frame: pa.Table) -> None:
    """Within a stratum the estimated number of look-alikes lowers the size: a common kind has less than a rare one."""
    table = respond(draw_master(frame, DESIGN), frame, DESIGN, _look(frame), inform=_inform).table
    mass, size = table["duplicates"].to_numpy(), table["size"].to_numpy()
    known = np.isfinite(mass) & table["observable"].to_numpy(zero_copy_only=False)
    assert np.corrcoef(np.log(mass[known]), np.log(size[known]))[0, 1] < -0.3
    assert size[known].min() > 0


@pytest.mark.parametrize("draw", ["pivotal", "local", "systematic", "random"])
def test_totals_are_right_on_average(frame: pa.Table, draw: str) -> None:
    """Σ y/π* over 150 draws with information: within four standard errors of the observable total (α ≈ 6·10⁻⁵)."""
    units = frame["unit"].to_numpy()
    truth = _value(units)[_is_clear(units)].sum()
    totals = []
    for seed in range(150):
        design = replace(DESIGN, seed=seed, draw=draw)
        totals.append(
            _total(_drawn(respond(draw_master(frame, design), frame, design, _look(frame), inform=_inform).table))
        )
    assert abs(np.mean(totals) - truth) < 4 * np.std(totals) / np.sqrt(len(totals))


def test_information_does_not_depend_on_batches(frame: pa.Table) -> None:
    """Equal digests when the same looks and overviews come again."""
    answers = [respond(draw_master(frame, DESIGN), frame, DESIGN, _look(frame), inform=_inform) for _ in range(2)]
    assert table_digest(answers[0].table) == table_digest(answers[1].table)


def test_missing_information_is_an_error(frame: pa.Table) -> None:
    """A design that wants information gets it or an error."""
    with pytest.raises(ValueError, match="inform"):
        respond(draw_master(frame, DESIGN), frame, DESIGN, _look(frame))


@pytest.fixture(scope="module")
def wide(make_cells: Cells) -> pa.Table:
    """Cells of three tiles, two of them neighbours."""
    return make_cells()


def _split_frame(cells: pa.Table, seed: int) -> pa.Table:
    kind = np.zeros(cells.num_rows, dtype=np.int64)
    split = draw_split(
        cells["lon"].to_numpy(), cells["lat"].to_numpy(), kind,
        share=0.3, block_km=40.0, buffer_km=1.0, chip_km=7.68, seed=seed,
    )  # fmt: skip
    return build_frame(
        cells, fit_strata(cells, clusters=1, min_cells=100, seed=1), years=(2022,), chip_size=256, split=split
    )


def test_held_out_and_training_each_estimate_the_whole_ground(wide: pa.Table) -> None:
    """Over 120 splits and draws, both splits' totals agree with the observable whole within four standard errors."""
    totals: dict[int, list[float]] = {0: [], 1: []}
    for seed in range(120):
        frame = _split_frame(wide, seed)
        design = replace(DESIGN, seed=seed, heldout=0.3, block_km=40.0, buffer_km=1.0, heldout_samples=60)
        table = respond(draw_master(frame, design), frame, design, _look(frame), inform=_inform).table
        assert np.isnan(table["entropy"].to_numpy()[table["split"].to_numpy() == 1]).all()
        for split in totals:
            totals[split].append(_total(_drawn(table, split)))
    units = frame["unit"].to_numpy()
    truth = _value(units)[_is_clear(units)].sum()
    for found in totals.values():
        assert abs(np.mean(found) - truth) < 4 * np.std(found) / np.sqrt(len(found))


def test_held_out_samples_are_shared_out_equally(wide: pa.Table) -> None:
    """Each stratum of the held-out ground gets as many samples as another, up to one, where it holds enough units."""
    frame = _split_frame(wide, 3)
    design = replace(DESIGN, seed=3, heldout=0.3, block_km=40.0, buffer_km=1.0, heldout_samples=60)
    record = plan_record(draw_master(frame, design))
    held = record.split == 1
    free = held & (record.target < record.frame_units)
    assert record.target[held].sum() == 60
    assert np.ptp(record.target[free]) <= 1
    assert np.all(record.target[held & ~free] <= record.target[free].max())


def test_a_buffer_unit_is_never_planned(wide: pa.Table) -> None:
    """The plan holds training and held-out units only, and each with the probability of its split."""
    frame = _split_frame(wide, 3)
    design = replace(DESIGN, seed=3, heldout=0.3, block_km=40.0, buffer_km=1.0, heldout_samples=60)
    plan = draw_master(frame, design)
    at = np.searchsorted(frame["unit"].to_numpy(), plan["unit"].to_numpy())
    split = frame["split"].to_numpy()[at]
    assert (frame["split"].to_numpy() < 0).any()
    assert np.array_equal(split, plan["split"].to_numpy())
    chance = np.where(split == 1, frame["p_heldout"].to_numpy()[at], frame["p_eligible"].to_numpy()[at])
    assert np.array_equal(plan["p_split"].to_numpy(), chance)


def _two_waves(frame: pa.Table, seed: int) -> tuple[pa.Table, pa.Table, NDArray[np.float64]]:
    """Responses of a wave and of its extension, which avoids what the first one has; λ of both, shape (2, G)."""
    design = replace(DESIGN, samples=40, seed=seed, novelty=2.0)
    plan = draw_master(frame, design)
    first = respond(plan, frame, design, _look(frame), inform=_inform).table
    looked = np.array(json.loads(first.schema.metadata[LOOKED])["ranks"], dtype=np.int64)
    more = replace(design, samples=60)
    further = next_wave(plan, looked, more)
    existing = descriptor_matrix(_drawn(first)["descriptor"].combine_chunks())[0]
    second = respond(further, frame, more, _look(frame), inform=_inform, existing=existing).table
    record = plan_record(plan)
    return first, second, wave_shares(_looks((first, second), (40, 60), record), record.frame_units)


def _looks(tables: tuple[pa.Table, pa.Table], asked: tuple[int, int], record: PlanRecord) -> Looks:
    size, further = record.frame_units.size, [json.loads(t.schema.metadata[LOOKED]) for t in tables]
    seen = [t.filter(t["observable"]) for t in tables]
    return Looks(
        asked=np.stack([np.full(size, n) for n in asked]),
        looked=np.stack([np.bincount(record.group(t), minlength=size) for t in tables]),
        observable=np.stack([np.bincount(record.group(t), minlength=size) for t in seen]),
        ranks=np.array([f["ranks"] for f in further]),
        found=np.array([f["observable"] for f in further]),
    )


def test_a_further_wave_takes_new_ranks(frame: pa.Table) -> None:
    """No unit is in two waves; the second begins behind everything that the first looked at."""
    first, second, _ = _two_waves(frame, 5)
    assert not np.isin(second["unit"].to_numpy(), first["unit"].to_numpy()).any()
    assert second["novelty"].to_numpy()[second["observable"].to_numpy(zero_copy_only=False)].min() < 1


def test_waves_together_are_right_on_average(frame: pa.Table) -> None:
    """λ-weighted totals of two waves, the second depending on the first, over 120 draws: within four standard
    errors.
    """
    units = frame["unit"].to_numpy()
    truth, totals = _value(units)[_is_clear(units)].sum(), []
    for seed in range(120):
        first, second, share = _two_waves(frame, seed)
        total = 0.0
        for table, part in ((first, share[0]), (second, share[1])):
            drawn = _drawn(table)
            terms = _value(drawn["unit"].to_numpy()) / drawn["pi_star"].to_numpy()
            total += float((part[drawn["stratum"].to_numpy()] * terms).sum())
        totals.append(total)
    assert abs(np.mean(totals) - truth) < 4 * np.std(totals) / np.sqrt(len(totals))


def test_an_extension_with_another_design_is_refused(frame: pa.Table) -> None:
    """Only the number of samples may differ, and there must be ranks left."""
    plan = draw_master(frame, DESIGN)
    record = plan_record(plan)
    with pytest.raises(ValueError, match="only the samples may differ"):
        next_wave(plan, record.first_look, replace(DESIGN, power=1.0))
    with pytest.raises(ValueError, match="no unit is left"):
        next_wave(plan, record.master_units, DESIGN)
