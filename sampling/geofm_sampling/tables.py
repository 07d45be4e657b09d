"""The tables of the two-phase design and their contracts: cells, frame, plan, look, response.

*Cell*: a chip-sized square of a tile's chip grid. *Unit*: cell × anchor season. *Master*: the ranked draw of
phase 1; every prefix of its ranks is a probability sample. *Look*: what screening measured for a unit's
candidate dates. *Observable*: enough feasible dates by a fixed rule. Order of the rooms: cells → frame → plan →
(look) → response → pixels.
"""

from __future__ import annotations

import pyarrow as pa

from geofm_sampling.contract import Column, TableContract

LAND_COVER_PREFIX = "lc_"
WEATHER_PREFIX = "wx_"
CLEAR_PREFIX = "cl_"
BY_PREFIX = "by_"
COVARIATE_PREFIXES = (LAND_COVER_PREFIX, WEATHER_PREFIX, CLEAR_PREFIX, BY_PREFIX)
"""Columns that a source of covariates gave."""

_CELL = {
    "tile": Column(type=pa.string(), meaning="MGRS tile that owns the cell"),
    "cell_row": Column(type=pa.int16(), meaning="row of the cell in the tile's chip grid, from the north"),
    "cell_col": Column(type=pa.int16(), meaning="column of the cell in the tile's chip grid, from the west"),
    "lon": Column(type=pa.float64(), meaning="longitude of the cell's centre, degrees east, -180 to 180"),
    "lat": Column(type=pa.float64(), meaning="latitude of the cell's centre, degrees north"),
    "area_km2": Column(type=pa.float32(), meaning="area of the cell, square kilometres"),
}

CELLS = TableContract(
    name="cells",
    columns=_CELL,
    extra_prefixes=COVARIATE_PREFIXES,
)
"""Owned ground cells with covariates: `lc_<class code>` float32 fractions of each land-cover class present in the
region (sum ≤ 1; the rest has no land cover), `wx_t01`…`wx_t12` monthly mean temperature in °C and `wx_p01`…`wx_p12`
monthly precipitation in mm, `cl_mean` float32 the expected clear share of the tile by its granules' cloud tags,
`by_<attribute>` string a user's own classes. A covariate that no source gave is absent, an unknown value NaN."""

FRAME = TableContract(
    name="frame",
    columns={
        "unit": Column(type=pa.uint64(), meaning="packed unit id (geofm_sampling.unit)"),
        **_CELL,
        "year": Column(type=pa.int16(), meaning="year of the first month of the anchor season"),
        "season": Column(type=pa.int8(), meaning="anchor season 0-3"),
        "season_start": Column(
            type=pa.int32(), meaning="first anchor day, days since 1970-01-01, clipped to the years"
        ),
        "season_end": Column(type=pa.int32(), meaning="last anchor day (inclusive), days since 1970-01-01, clipped"),
        "land_cover": Column(type=pa.string(), meaning="land-cover group, 'any' without a land-cover map"),
        "climate": Column(type=pa.int16(), meaning="climate cluster, 0 without weather"),
        "stratum": Column(type=pa.int32(), meaning="stratum number; its name stands in strata.json"),
        "block": Column(type=pa.int32(), meaning="split block of the cell's centre (geofm_sampling.blocks)"),
        "split": Column(type=pa.int8(), meaning="0 training, 1 held-out, -1 neither: buffer around held-out blocks"),
        "p_eligible": Column(type=pa.float64(), meaning="probability of the ground to be for training, over splits"),
        "p_heldout": Column(type=pa.float64(), meaning="probability of the ground to be held out: its block's p_b"),
    },
    extra_prefixes=COVARIATE_PREFIXES,
)
"""One row per unit, in the order of `unit`."""

PLAN = TableContract(
    name="plan",
    columns={
        "unit": Column(type=pa.uint64(), meaning="packed unit id"),
        "stratum": Column(type=pa.int32(), meaning="stratum number"),
        "split": Column(type=pa.int8(), meaning="0 training, 1 held-out: each is a draw of its own"),
        "rank": Column(type=pa.int32(), meaning="rank in the master draw of its stratum and split, from 0"),
        "first_look": Column(type=pa.bool_(), meaning="rank lies in the planned first phase"),
        "p_split": Column(type=pa.float64(), meaning="probability of the ground to be in this split"),
        "pi1": Column(type=pa.float64(), meaning="first-phase inclusion probability at the planned size"),
    },
)
"""The master draw, sorted by (split, stratum, rank). Schema metadata `geofm` holds the design and the sizes."""

LOOK = TableContract(
    name="look",
    columns={
        "unit": Column(type=pa.uint64(), meaning="packed unit id"),
        "granule_id": Column(type=pa.string(), meaning="HLS granule id"),
        "date": Column(type=pa.int32(), meaning="sensing day (UTC), days since 1970-01-01"),
        "covered": Column(type=pa.float32(), meaning="share of the cell's pixels with data (Fmask is not fill)"),
        "clear": Column(type=pa.float32(), meaning="share of the cell's pixels that pass the mask rule"),
    },
)
"""Candidate dates of looked-at units, one row per (unit, granule); NaN shares where the Fmask could not be read."""

INFORMATION = TableContract(
    name="information",
    columns={
        "unit": Column(type=pa.uint64(), meaning="packed unit id"),
        "entropy": Column(type=pa.float32(), meaning="spectral entropy of the clear pixels, bits; NaN if unreadable"),
        "descriptor": Column(
            type=pa.list_(pa.float32()), meaning="what near-duplicates are judged by, reflectances; empty if unreadable"
        ),
    },
)
"""What one spectral overview per observable unit says about it (geofm_sampling.information)."""

RESPONSE = TableContract(
    name="response",
    columns={
        "unit": Column(type=pa.uint64(), meaning="packed unit id"),
        "stratum": Column(type=pa.int32(), meaning="stratum number"),
        "split": Column(type=pa.int8(), meaning="0 training, 1 held-out"),
        "rank": Column(type=pa.int32(), meaning="rank in the stratum's master draw"),
        "state": Column(type=pa.string(), meaning="why the unit is in or out, one of geofm_sampling.tables.STATES"),
        "observable": Column(type=pa.bool_(), meaning="enough feasible dates by the fixed rule"),
        "dates_seen": Column(type=pa.int16(), meaning="granules within reach that cover some of the cell"),
        "dates_feasible": Column(type=pa.int16(), meaning="of those, with a clear share of at least min_clear"),
        "clear_best": Column(type=pa.float32(), meaning="largest clear share in the anchor season, NaN if none"),
        "entropy": Column(type=pa.float32(), meaning="spectral entropy of the clear pixels, bits; NaN if not measured"),
        "descriptor": Column(type=pa.list_(pa.float32()), meaning="descriptor of the overview; empty if not measured"),
        "duplicates": Column(
            type=pa.float32(), meaning="estimated frame units that look alike in the stratum (itself included), or NaN"
        ),
        "novelty": Column(type=pa.float32(), meaning="distance from existing data, 0 to 1; 1 where there is none"),
        "size": Column(type=pa.float32(), meaning="relative chance in phase 2 within the stratum, 1 on average"),
        "granules": Column(type=pa.list_(pa.string()), meaning="chosen granule ids in order of date, empty if out"),
        "dates": Column(type=pa.list_(pa.int32()), meaning="chosen days since 1970-01-01, ascending"),
        "clear": Column(type=pa.list_(pa.float32()), meaning="clear share of each chosen date"),
        "p_dates": Column(type=pa.float64(), meaning="probability of the chosen dates among all feasible sequences"),
        "pi1": Column(type=pa.float64(), meaning="first-phase inclusion probability at the realised look"),
        "pi2_given_phase1": Column(type=pa.float64(), meaning="second-phase probability given the look"),
        "pi_star": Column(type=pa.float64(), meaning="pi1 × pi2_given_phase1; 1/pi_star is the design weight"),
        "shard": Column(type=pa.int32(), meaning="shard of the store, -1 if not drawn"),
        "row": Column(type=pa.int32(), meaning="row within the shard, -1 if not drawn"),
    },
)
"""Every unit of phase 1 (the first k_h ranks), sorted by (split, stratum, rank); `shard >= 0` marks the drawn ones."""

STATES = {
    "drawn": "observable and drawn in phase 2",
    "observable": "observable, not drawn in phase 2",
    "no_scene": "no granule of the owner tile in the anchor season",
    "no_coverage": "granules in the season, none covers any of the cell",
    "unreadable": "every granule of the season failed to be read in screening",
    "partial": "covered in the season, never by enough of a swath to be feasible",
    "cloud": "covered in the season, never clear enough",
    "gap_rule": "a feasible anchor date, but no sequence of T dates within the gap limits",
}
"""Why a unit is in or out. The first matching reason below `observable`, from no_scene on, is the one given."""
