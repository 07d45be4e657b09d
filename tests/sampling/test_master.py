"""The master draw."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from geofm_sampling import Design, build_frame, draw_master, fit_strata, plan_record, table_digest
from geofm_sampling.hilbert import hilbert_of_ground
from geofm_sampling.master import stratum_order
from geofm_sampling.unit import ground_cells

Cells = Callable[..., pa.Table]


@pytest.fixture(scope="module")
def frame(make_cells: Cells) -> pa.Table:
    cells = make_cells()
    return build_frame(cells, fit_strata(cells, clusters=2, seed=1), years=[2021, 2022], chip_size=256)


@pytest.fixture(scope="module")
def small(make_cells: Cells) -> pa.Table:
    cells = make_cells(("10SFE",), side=6, land_cover=False, weather=False)
    return build_frame(cells, fit_strata(cells, seed=1), years=[2022], chip_size=256)


def design(**changes: object) -> Design:
    return Design(**{"years": (2021, 2022), "samples": 200, "seed": 3, **changes})


def test_sizes_ranks_and_probabilities_agree(frame: pa.Table) -> None:
    """Each stratum's ranks run from 0 to M_h − 1 over distinct units of it, and π₁ = n₁h / N_h."""
    plan = draw_master(frame, design(master_least=50, master_factor=4))
    record = plan_record(plan)
    stratum, rank = plan["stratum"].to_numpy(), plan["rank"].to_numpy()
    assert np.unique(plan["unit"].to_numpy()).size == plan.num_rows == record.master_units.sum()
    assert np.array_equal(np.lexsort((rank, stratum)), np.arange(plan.num_rows))
    place = np.searchsorted(frame["unit"].to_numpy(), plan["unit"].to_numpy())
    assert np.array_equal(frame["stratum"].to_numpy()[place], stratum)
    for h in np.flatnonzero(record.frame_units):
        mine = stratum == h
        assert rank[mine].tolist() == list(range(record.master_units[h]))
        assert plan["first_look"].to_numpy()[mine].sum() == record.first_look[h]
        assert np.allclose(plan["pi1"].to_numpy()[mine], record.first_look[h] / record.frame_units[h])
    assert record.target.sum() == 200
    assert record.first_look.sum() == 400
    assert np.all(record.first_look >= np.minimum(2 * record.target, record.frame_units))
    assert (record.master_units < record.frame_units).any()


def test_metadata_survives_parquet(frame: pa.Table, tmp_path: object) -> None:
    """A plan read back says the same design and sizes, and has the same digest."""
    plan = draw_master(frame, design())
    pq.write_table(plan, f"{tmp_path}/plan.parquet")
    again = pq.read_table(f"{tmp_path}/plan.parquet")
    assert table_digest(again) == table_digest(plan)
    assert plan_record(again).design == design()
    assert plan_record(again).table().equals(plan_record(plan).table())
    with pytest.raises(ValueError, match="no schema metadata"):
        plan_record(plan.replace_schema_metadata(None))


def test_every_prefix_of_ranks_is_an_equal_probability_sample(small: pa.Table) -> None:
    """Over 1,500 seeds each unit's frequency in the first k ranks is k / N_h, for three k, α = 10⁻³ per k."""
    counts: dict[int, dict[int, int]] = {k: dict.fromkeys(small["unit"].to_pylist(), 0) for k in (1, 5, 11)}
    rounds = 1_500
    for seed in range(rounds):
        plan = draw_master(small, Design(years=(2022,), samples=8, seed=seed, master_least=1, master_factor=4))
        unit, rank = plan["unit"].to_numpy(), plan["rank"].to_numpy()
        for k, seen in counts.items():
            for u in unit[rank < k].tolist():
                seen[u] += 1
    size = dict(enumerate(np.bincount(small["stratum"].to_numpy())))
    for k, seen in counts.items():
        p = np.array([k / size[h] for h in small["stratum"].to_pylist()])
        observed = np.array(list(seen.values()))
        z = (observed - rounds * p) / np.sqrt(rounds * p * (1 - p))
        assert stats.norm.sf(np.abs(z).max()) * 2 * z.size > 1e-3


def test_order_follows_curve_then_cell_then_time(frame: pa.Table) -> None:
    """Within a stratum, units follow the Hilbert curve; the seasons of a cell stay together in order of time."""
    unit, stratum = frame["unit"].to_numpy(), frame["stratum"].to_numpy()
    lon, lat = frame["lon"].to_numpy(), frame["lat"].to_numpy()
    expected = np.lexsort((unit, hilbert_of_ground(lon, lat), stratum))
    assert np.array_equal(stratum_order(unit, stratum, lon, lat), expected)


def test_a_cell_is_rarely_drawn_twice(frame: pa.Table) -> None:
    """The first look repeats a ground cell within a stratum less often than a simple random draw would.

    Mean over 20 seeds below half of the simple random expectation (a tenth was observed).
    """
    repeats, expected = 0, 0.0
    for seed in range(20):
        plan = draw_master(frame, design(seed=seed)).filter(pa.compute.field("first_look"))
        key = plan["stratum"].to_numpy().astype(np.uint64) << np.uint64(50) | ground_cells(plan["unit"].to_numpy())
        repeats += plan.num_rows - np.unique(key).size
        rng = np.random.default_rng(seed)
        for h, n in zip(*np.unique(plan["stratum"].to_numpy(), return_counts=True), strict=True):
            mine = ground_cells(frame["unit"].to_numpy()[frame["stratum"].to_numpy() == h])
            expected += n - np.unique(rng.choice(mine, n, replace=False)).size
    assert repeats < 0.5 * expected


def test_same_seed_same_plan_other_seed_other_plan(frame: pa.Table) -> None:
    """The draw is a function of frame and design."""
    digests = [table_digest(draw_master(frame, design(seed=seed))) for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_strata_draw_independently_of_each_other(frame: pa.Table) -> None:
    """Removing one stratum from the frame leaves the order of another untouched: streams belong to stratum names."""
    plan = draw_master(frame, design())
    kept = int(np.flatnonzero(plan_record(plan).frame_units)[0])
    alone = draw_master(frame.filter(pa.compute.field("stratum") == kept), design())
    pick = [t.filter(pa.compute.field("stratum") == kept)["unit"].to_pylist() for t in (plan, alone)]
    assert pick[0] == pick[1]


def test_more_samples_than_units_are_capped_and_said(small: pa.Table) -> None:
    """A frame smaller than N gives all of it, with a note; few samples say which fallback was taken."""
    plan = draw_master(small, Design(years=(2022,), samples=10_000))
    record = plan_record(plan)
    assert record.target.sum() == small.num_rows
    assert any("only 180 units" in note for note in record.notes)
    few = plan_record(draw_master(small, Design(years=(2022,), samples=2)))
    assert few.target.sum() == 2
    assert any("the floor is 0" in note for note in few.notes)
    assert any("fewer than 4 strata" in note for note in few.notes)


def test_frames_that_cannot_be_drawn_from_are_refused(small: pa.Table) -> None:
    """Empty and unsorted frames are errors."""
    with pytest.raises(ValueError, match="empty"):
        draw_master(small.slice(0, 0), design())
    with pytest.raises(ValueError, match="sorted by unit"):
        draw_master(small.take(pa.array([1, 0, 2])), design())
