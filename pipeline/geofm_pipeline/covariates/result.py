"""What a covariate source gives."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Covariates:
    """Cells with the columns of one source."""

    table: pa.Table
    """CELLS with new columns, rows and order unchanged."""
    note: str
    """What a reader of the report should know (coarse pixels, gaps, other years); '' when there is nothing."""
