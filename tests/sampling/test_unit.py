"""Unit ids."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geofm_sampling.unit import (
    CHIP_SIZES,
    NO_UNIT,
    cell_ids,
    cells_per_side,
    ground_cells,
    pack_tile,
    pack_units,
    pack_units_of_tiles,
    unpack_tile,
    unpack_units,
)

TILES = st.builds(
    "{:02d}{}{}{}".format,
    st.integers(1, 60),
    st.sampled_from("CDEFGHJKLMNPQRSTUVWX"),
    st.sampled_from("ABCDEFGHJKLMNPQRSTUVWXYZ"),
    st.sampled_from("ABCDEFGHJKLMNPQRSTUV"),
)


@st.composite
def fields(draw: st.DrawFn) -> tuple[str, int, int, int, int, int]:
    size = draw(st.sampled_from(CHIP_SIZES))
    cell = st.integers(0, cells_per_side(size) - 1)
    return draw(TILES), size, draw(cell), draw(cell), draw(st.integers(1970, 2225)), draw(st.integers(0, 3))


@given(fields())
def test_unpacking_gives_back_every_field(values: tuple[str, int, int, int, int, int]) -> None:
    """A unit id names tile, chip size, cell, year and season without loss, in fewer than 46 bits."""
    tile, size, row, col, year, season = values
    unit = pack_units(tile=tile, chip_size=size, cell_row=row, cell_col=col, year=year, season=season)
    u = unpack_units(unit.reshape(1))
    got = (u.tile[0], u.chip_size[0], u.cell_row[0], u.cell_col[0], u.year[0], u.season[0])
    assert got == values
    assert int(unit) < 2**46
    assert unit != NO_UNIT


@given(st.lists(fields(), min_size=2, max_size=20, unique=True))
def test_ids_sort_like_their_fields_and_never_collide(many: list[tuple[str, int, int, int, int, int]]) -> None:
    """Ids sort by tile, chip size, row, column, year, season, and two different units differ."""
    many = sorted(many, key=lambda v: (pack_tile(v[0]), CHIP_SIZES.index(v[1]), *v[2:]))
    ids = [int(pack_units(tile=t, chip_size=c, cell_row=r, cell_col=k, year=y, season=s)) for t, c, r, k, y, s in many]
    assert ids == sorted(set(ids))


@given(TILES)
def test_tile_numbers_are_reversible_and_ordered_like_names(tile: str) -> None:
    """A tile's number unpacks to its name, and numbers sort as names do."""
    assert unpack_tile(pack_tile(tile)) == tile
    assert (pack_tile(tile) < pack_tile("31UFT")) == (tile < "31UFT")


@pytest.mark.parametrize("tile", ["", "10SF", "10SFEE", "00SFE", "61SFE", "10IFE", "10SOE", "10SFW", "T10SFE", "1OSFE"])
def test_what_is_no_tile_is_refused_by_name(tile: str) -> None:
    """An impossible tile id is named in the error."""
    with pytest.raises(ValueError, match="is not an MGRS tile id"):
        pack_tile(tile)


@pytest.mark.parametrize(
    ("field", "value"), [("cell_row", 14), ("cell_col", -1), ("year", 1969), ("year", 2226), ("season", 4)]
)
def test_fields_out_of_range_are_refused_by_name(field: str, value: int) -> None:
    """A field that does not fit would spill into its neighbour: it is refused."""
    good = {"cell_row": 0, "cell_col": 0, "year": 2022, "season": 0}
    with pytest.raises(ValueError, match=field):
        pack_units(tile="10SFE", chip_size=256, **{**good, field: value})


def test_a_chip_size_that_splits_blocks_is_refused() -> None:
    """Only chips that divide a 256-px block have a grid."""
    with pytest.raises(ValueError, match="224 px"):
        cells_per_side(224)
    assert [cells_per_side(size) for size in CHIP_SIZES] == [57, 28, 14]


def test_many_tiles_at_once_equal_one_by_one() -> None:
    """Packing by tile numbers, and by a column of names in any encoding, equals packing tile by tile."""
    tiles, row, col = ["10SFE", "34HBH", "10SFE"], [1, 2, 3], [4, 5, 6]
    one_by_one = [
        int(pack_units(tile=t, chip_size=64, cell_row=r, cell_col=c, year=1970, season=0))
        for t, r, c in zip(tiles, row, col, strict=True)
    ]
    by_number = pack_units_of_tiles(
        tile_number=[pack_tile(t) for t in tiles], chip_size=64, cell_row=row, cell_col=col, year=1970, season=0
    )
    plain = pa.chunked_array([tiles[:1], tiles[1:]])
    for column in (plain, plain.dictionary_encode()):
        assert cell_ids(column, chip_size=64, cell_row=row, cell_col=col).tolist() == one_by_one
    assert by_number.tolist() == one_by_one


def test_seasons_of_a_cell_share_the_ground() -> None:
    """ground_cells is equal exactly for units of one cell."""
    units = pack_units(tile="10SFE", chip_size=64, cell_row=3, cell_col=[4, 4, 5], year=[2020, 2021, 2020], season=1)
    cells = ground_cells(units)
    assert cells[0] == cells[1] != cells[2]


def test_no_units_unpack_to_no_fields() -> None:
    """Empty in, empty out."""
    assert unpack_units(np.zeros(0, dtype=np.uint64)).tile.shape == (0,)
