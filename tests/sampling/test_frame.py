"""The frame and the design."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from geofm_sampling import FRAME, Design, build_frame, fit_strata, table_digest, unpack_units
from geofm_sampling.seasons import anchor_seasons

Cells = Callable[..., pa.Table]


def test_every_cell_in_every_anchor_season_once(make_cells: Cells) -> None:
    """The frame is the product of cells and their calendars, sorted by unit, and ids agree with the columns."""
    cells = make_cells(weather=False)
    frame = build_frame(cells, fit_strata(cells, seed=1), years=[2021, 2022], chip_size=256)
    FRAME.check(frame)
    unit = frame["unit"].to_numpy()
    assert np.all(unit[1:] > unit[:-1])
    u = unpack_units(unit)
    assert u.tile.tolist() == frame["tile"].to_pylist()
    for name in ("cell_row", "cell_col", "year", "season"):
        assert np.array_equal(getattr(u, name), frame[name].to_numpy())
    assert set(u.chip_size) == {256}
    south = frame["lat"].to_numpy() < 0
    for half, start in ((south, 5), (~south, 11)):
        anchors = anchor_seasons(start, [2021, 2022])
        assert (
            half.sum()
            == anchors.year.size * (cells["lat"].to_numpy() < 0 if start == 5 else cells["lat"].to_numpy() > 0).sum()
        )
        assert set(frame["season_start"].to_numpy()[half]) == set(anchors.start)
        assert set(frame["season_end"].to_numpy()[half]) == set(anchors.end)


def test_strata_are_class_by_season(make_cells: Cells) -> None:
    """A unit's stratum name says its land cover, climate and season."""
    cells = make_cells()
    strata = fit_strata(cells, seed=1, min_cells=1)
    frame = build_frame(cells, strata, years=[2022], chip_size=256)
    for row in frame.take(pa.array(np.arange(0, frame.num_rows, 97))).to_pylist():
        assert strata.names[row["stratum"]] == f"{row['land_cover']}/c{row['climate']}/s{row['season']}"
    assert json.loads(frame.schema.metadata[b"geofm"])["strata_digest"] == strata.digest


def test_the_order_of_cells_does_not_matter(make_cells: Cells) -> None:
    """Shuffled cells give the identical frame."""
    cells = make_cells()
    shuffled = cells.take(pa.array(np.random.default_rng(0).permutation(cells.num_rows)))
    strata = fit_strata(cells, seed=1)
    frames = [build_frame(c, strata, years=[2022], chip_size=256) for c in (cells, shuffled)]
    assert table_digest(frames[0]) == table_digest(frames[1])


def test_more_years_keep_the_old_units_and_strata(make_cells: Cells) -> None:
    """Whole seasons of a year have the same id and stratum in a longer frame."""
    cells = make_cells()
    strata = fit_strata(cells, seed=1)
    one = build_frame(cells, strata, years=[2021], chip_size=256)
    two = build_frame(cells, strata, years=[2021, 2022], chip_size=256)
    place = np.searchsorted(two["unit"].to_numpy(), one["unit"].to_numpy())
    assert np.array_equal(two["unit"].to_numpy()[place], one["unit"].to_numpy())
    assert np.array_equal(two["stratum"].to_numpy()[place], one["stratum"].to_numpy())


def replaced(cells: pa.Table, name: str, value: object) -> pa.Table:
    column = cells[name].to_pylist()
    column[7] = value
    return cells.set_column(cells.column_names.index(name), name, pa.array(column, cells.schema.field(name).type))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("lon", float("nan"), "lon of a cell"),
        ("lat", 91.0, "lat of a cell"),
        ("area_km2", 0.0, "area_km2 of a cell"),
        ("area_km2", float("nan"), "area_km2 of a cell"),
        ("tile", "99XYZ", "not an MGRS tile"),
        ("cell_row", 14, "cell_row must lie in 0-13"),
        ("cell_col", 3, "more than once"),
    ],
)
def test_impossible_cells_are_refused(make_cells: Cells, name: str, value: object, words: str) -> None:
    """A cell that cannot be is named before anything is drawn."""
    cells = make_cells(land_cover=False, weather=False)
    strata = fit_strata(cells, seed=1)
    with pytest.raises(ValueError, match=words):
        build_frame(replaced(cells, name, value), strata, years=[2022], chip_size=256)


def test_no_cells_no_frame(make_cells: Cells) -> None:
    """An empty region is an error with a reason."""
    cells = make_cells()
    with pytest.raises(ValueError, match="frame is empty"):
        build_frame(cells.slice(0, 0), fit_strata(cells, seed=1), years=[2022], chip_size=256)


def test_design_round_trip_and_digest() -> None:
    """A design survives JSON; any changed field changes the digest."""
    design = Design(years=(2021, 2022), samples=7)
    assert Design.from_json(design.to_json()) == design
    assert design.reach == 540
    digests = {Design(years=(2021, 2022), samples=7, seed=seed).digest for seed in range(5)}
    assert len(digests) == 5
    assert design.digest in digests


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("samples", 0),
        ("timesteps", 0),
        ("timesteps", 65),
        ("min_gap", 0),
        ("max_gap", 9),
        ("min_clear", 0.0),
        ("min_clear", 1.1),
        ("power", 2.0),
        ("floor", -1),
        ("heldout", 0.6),
        ("heldout_samples", -1),
        ("block_km", 0.0),
        ("buffer_km", -1.0),
        ("novelty", -0.1),
        ("draw", "lottery"),
        ("allocation", "fair"),
        ("first_phase", 0.5),
        ("chip_size", 224),
        ("years", ()),
    ],
)
def test_impossible_designs_are_refused(field: str, value: object) -> None:
    """The field, its value and the rule stand in the error."""
    with pytest.raises(ValueError, match="chip size" if field == "chip_size" else field):
        Design(**{"years": (2022,), field: value})
