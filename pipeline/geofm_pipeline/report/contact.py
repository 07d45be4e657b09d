"""The contact sheet: some chips of every stratum, all dates side by side, as a person would look at them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray

from geofm_pipeline.hls.bands import BANDS
from geofm_pipeline.hls.fmask import BITS, DEFAULT_RULE, MaskRule
from geofm_pipeline.report import pixels, words
from geofm_pipeline.report.folder import Folder, wave_of
from geofm_pipeline.report.ground import HELD_OUT, split_of
from geofm_pipeline.workspace import Workspace
from geofm_sampling.hashing import hashed_words
from geofm_sampling.unit import ground_cells, unpack_units

MOST_CHIPS = 48
MOST_DATES = 6
"""Dates shown per chip; further ones are counted in words."""
MOST_BYTES = 2_400_000
"""Characters of all pictures together: the sheet ends early rather than grow beyond it."""
UNFOLDED = 16
"""Chips shown at once; the others wait behind a fold."""


@dataclass(frozen=True, kw_only=True)
class View:
    """One date of a chip."""

    day: str
    """Sensing day in words."""
    sensor: str
    """`Landsat`, `Sentinel-2` or empty."""
    share: float
    """Share of usable pixels."""
    picture: str
    """Data URI."""
    mask: str | None
    """Data URI of the unusable pixels, None where all are usable."""


@dataclass(frozen=True, kw_only=True)
class ChipCard:
    """One chip of the sheet."""

    unit: str
    """Packed unit id."""
    tile: str
    """MGRS tile, from the unit id."""
    place: str
    """Latitude and longitude in words, empty where the frame is not there."""
    stratum: str
    """Stratum in words."""
    colour: str
    """Colour of its land-cover group."""
    views: Sequence[View]
    """Its first MOST_DATES dates."""
    more_dates: int
    """Dates that are not shown."""
    index: int
    """Sample index in the store."""
    wave: int | None
    """Wave of the store; None where there is one only."""
    held_out: bool
    """Whether it is for evaluation."""


@dataclass(frozen=True, kw_only=True)
class ContactSheet:
    """The chips shown, those to unfold, and how many there are in all."""

    first: Sequence[ChipCard]
    """Shown at once, at most UNFOLDED."""
    folded: Sequence[ChipCard]
    """Shown on demand."""
    total: int
    """Written chips of the store."""
    unreadable: Sequence[str]
    """Why a chip of the sheet could not be shown, one sentence each."""

    @property
    def chips(self) -> Sequence[ChipCard]:
        """All chips of the sheet."""
        return [*self.first, *self.folded]


def contact_sheet(folder: Folder) -> ContactSheet | None:
    """The sheet; None where no pixels were written yet."""
    places = folder.places
    stores = {wave: store for wave, store in folder.stores.items() if "image" in store and "fmask" in store}
    if places is None or not stores or not places.num_rows:
        return None
    rows = _present(folder, places, stores)
    order = rows[chosen_rows(places["unit"].to_numpy()[rows], places["stratum"].to_numpy()[rows], MOST_CHIPS)]
    cards, unreadable, used = list[ChipCard](), list[str](), 0
    wave = wave_of(places)
    readers = {number: _Reader(folder, places, store) for number, store in stores.items()}
    for row in order.tolist():
        reader = readers[int(wave[row])]
        try:
            card = reader.card(row)
        except (OSError, ValueError, RuntimeError, IndexError, KeyError) as error:
            unreadable.append(f"Sample {reader.index[row]} could not be read: {error}")
            continue
        used += sum(len(view.picture) + len(view.mask or "") for view in card.views)
        if used > MOST_BYTES and cards:
            break
        cards.append(card)
    if not cards and not unreadable:
        return None
    return ContactSheet(first=cards[:UNFOLDED], folded=cards[UNFOLDED:], total=rows.size, unreadable=unreadable)


def chosen_rows(units: NDArray[np.uint64], strata: NDArray[np.int32], most: int) -> list[int]:
    """Up to `most` rows by hash: one of every stratum before the second of any, places not shown yet first.

    Depends on the set of units only, not on their order.
    """
    word, ground = hashed_words(0, "report/sheet", units), ground_cells(units).tolist()
    pools: dict[int, list[int]] = {}
    for row in np.argsort(word).tolist():
        pool = pools.setdefault(int(strata[row]), [])
        if len(pool) < 8 * most:
            pool.append(row)
    chosen, shown = list[int](), Counter[int]()
    while len(chosen) < most and pools:
        for stratum in list(pools)[: most - len(chosen)]:
            row = min(pools[stratum], key=lambda at: shown[ground[at]])
            pools[stratum].remove(row)
            shown[ground[row]] += 1
            chosen.append(row)
        pools = {stratum: pool for stratum, pool in pools.items() if pool}
    return chosen


def _present(folder: Folder, places: pa.Table, stores: Mapping[int, zarr.Group]) -> NDArray[np.int64]:
    """Rows whose pixels are in a store: written ones, or in an unfinished store those whose shard is there."""
    wave = wave_of(places)
    inside = np.isin(wave, list(stores))
    if folder.samples is not None:
        return np.flatnonzero(inside & (np.array(places["state"].to_pylist(), dtype=object) == "written"))
    for number in stores:
        path = Workspace(root=folder.root, wave=number).store / "image"
        shards = [int(found.name.split(".")[1]) for found in path.glob("c.*")]
        inside &= (wave != number) | np.isin(places["shard"].to_numpy(), shards)
    return np.flatnonzero(inside)


class _Reader:
    """Reads chips of one store and makes their cards."""

    def __init__(self, folder: Folder, places: pa.Table, store: zarr.Group) -> None:
        self.places, self.folder = places, folder
        attributes = store.attrs.get("geofm")
        self._facts: Mapping[str, object] = attributes if isinstance(attributes, dict) else {}
        image, fmask = store["image"], store["fmask"]
        if not isinstance(image, zarr.Array) or not isinstance(fmask, zarr.Array):
            raise ValueError("image and fmask of the store are no arrays")
        self.image, self.fmask = image, fmask
        self.rule = _mask_rule(self._facts)
        shard_size = self._facts.get("shard_size")
        self.index = (
            places["index"].to_numpy()
            if "index" in places.column_names
            else places["shard"].to_numpy().astype(np.int64) * (shard_size if isinstance(shard_size, int) else 64)
            + places["row"].to_numpy()
        )
        self.units = places["unit"].to_numpy()
        self.tile = unpack_units(self.units).tile
        self.wave, self.held_out = wave_of(places), split_of(places) == HELD_OUT
        self.at = folder.cells.place(self.units) if folder.cells is not None else np.full(self.units.shape, -1)

    def card(self, row: int) -> ChipCard:
        index = int(self.index[row])
        image = np.asarray(self.image[index], dtype=np.int16)
        fmask = np.asarray(self.fmask[index], dtype=np.uint8)
        if image.ndim != 4 or image.shape[1] != len(BANDS):
            raise ValueError(f"its image has shape {image.shape}, not [T, {len(BANDS)}, H, W]")
        stratum = self.places["stratum"][row].as_py()
        head, season = words.stratum_parts(self.folder.stratum_name(stratum), stratum)
        months = words.season_words(self.folder.strata, head, season, self._south(row))
        return ChipCard(
            unit=str(self.units[row]),
            tile=str(self.tile[row]),
            place=self._place(row),
            stratum=f"{words.class_words(head)}, {months}",
            colour=words.group_colour(head.split("/")[0]),
            views=self._views(row, image, fmask),
            more_dates=max(0, image.shape[0] - MOST_DATES),
            index=index,
            wave=int(self.wave[row]) if len(self.folder.waves) > 1 else None,
            held_out=bool(self.held_out[row]),
        )

    def _views(self, row: int, image: NDArray[np.int16], fmask: NDArray[np.uint8]) -> list[View]:
        stretch = pixels.chip_stretch(image, fmask, self.rule)
        dates, granules = self.places["dates"][row].as_py(), self.places["granules"][row].as_py()
        valid = self.places["valid" if "valid" in self.places.column_names else "clear"][row].as_py()
        return [
            View(
                day=words.day(dates[t]),
                sensor={"L30": "Landsat", "S30": "Sentinel-2"}.get(granules[t][4:7], ""),
                share=float(valid[t]),
                picture=pixels.photograph(pixels.true_colour(image[t], stretch)),
                mask=pixels.mask_overlay(image[t], fmask[t], self.rule),
            )
            for t in range(min(image.shape[0], MOST_DATES, len(dates)))
        ]

    def _place(self, row: int) -> str:
        at = int(self.at[row])
        cells = self.folder.cells
        return words.place(float(cells.lon[at]), float(cells.lat[at])) if cells is not None and at >= 0 else ""

    def _south(self, row: int) -> bool:
        at = int(self.at[row])
        return bool(self.folder.cells is not None and at >= 0 and self.folder.cells.lat[at] < 0)


def _mask_rule(facts: Mapping[str, object]) -> MaskRule:
    rule = facts.get("valid_pixel")
    bits = rule.get("bits") if isinstance(rule, Mapping) else None
    known = tuple(bit for bit in bits if bit in BITS) if isinstance(bits, list) else ()
    return MaskRule(bits=known) if known else DEFAULT_RULE
