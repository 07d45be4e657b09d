"""Probability sampling of Earth-observation archives: pure functions on tables and arrays.

cells → :func:`fit_strata` → :func:`build_frame` → :func:`draw_master` → (look) → :func:`respond`.
"""

from geofm_sampling.allocation import allocate
from geofm_sampling.blocks import Split, draw_split, enough_blocks
from geofm_sampling.contract import Column, TableContract
from geofm_sampling.design import Design
from geofm_sampling.digest import table_digest
from geofm_sampling.estimation import estimate
from geofm_sampling.frame import build_frame
from geofm_sampling.master import draw_master, next_wave
from geofm_sampling.phase_one import Look, anchor_days
from geofm_sampling.phase_two import Inform
from geofm_sampling.plan import PlanRecord, plan_record
from geofm_sampling.response import Response, respond
from geofm_sampling.strata import Strata, fit_strata
from geofm_sampling.tables import CELLS, FRAME, LOOK, PLAN, RESPONSE, STATES
from geofm_sampling.unit import Units, pack_units, unpack_units

__all__ = [
    "CELLS",
    "FRAME",
    "LOOK",
    "PLAN",
    "RESPONSE",
    "STATES",
    "Column",
    "Design",
    "Inform",
    "Look",
    "PlanRecord",
    "Response",
    "Split",
    "Strata",
    "TableContract",
    "Units",
    "allocate",
    "anchor_days",
    "build_frame",
    "draw_master",
    "draw_split",
    "enough_blocks",
    "estimate",
    "fit_strata",
    "next_wave",
    "pack_units",
    "plan_record",
    "respond",
    "table_digest",
    "unpack_units",
]
