"""What screening read, what it refused, and whether the catalogue's cloud figures can be trusted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from markupsafe import Markup
from numpy.typing import NDArray

from geofm_pipeline.report import svg
from geofm_pipeline.report.folder import Folder, with_state
from geofm_pipeline.report.geography import png

SPARSE = 10.0
"""Percent of a tile below which a granule's cloud figure says little."""
FAR = 5.0
"""Percent by which catalogue and measurement may differ before a granule is listed."""
MOST_LISTED = 12
MOST_DOTS = 1500
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Odd:
    """A granule whose catalogue figure misleads."""

    granule: str
    """Granule id."""
    catalogue: str
    """Cloud cover in the catalogue, in words."""
    measured: str
    """Cloud cover of the mask, in words."""
    why: str
    """What is odd about it."""


@dataclass(frozen=True, kw_only=True)
class ScreeningPanel:
    """What the screening section shows."""

    granules: int
    """Granules whose mask was asked for."""
    read_bytes: float | None
    """Bytes of those masks."""
    causes: Sequence[tuple[str, Sequence[str], int]]
    """(cause, some granules, number of granules) of what was refused, most frequent first."""
    refused: int
    """Granules that could not be used."""
    scatter: Markup | None
    """Catalogue against measured cloud; None without catalogue figures."""
    compared: int
    """Granules with both figures."""
    odd: Sequence[Odd]
    """The worst of those that stand out, at most MOST_LISTED."""
    odd_total: int
    """All that stand out."""


def screening_panel(folder: Folder) -> ScreeningPanel | None:
    """The panel; None where no granule was screened."""
    table, noted = folder.screening, folder.card.part("screening")
    if table is None and not noted:
        return None
    pairs = _Pairs.of(folder)
    refusals = _refusals(folder)
    read = int(table["bytes"].to_numpy().sum()) if table is not None else None
    return ScreeningPanel(
        granules=noted.count("granules") or (table.num_rows if table is not None else 0),
        read_bytes=noted.number("bytes") or read,
        causes=_by_cause(refusals),
        refused=len(refusals),
        scatter=_scatter(pairs) if pairs is not None and pairs.granule.size else None,
        compared=pairs.granule.size if pairs is not None else 0,
        odd=pairs.odd()[:MOST_LISTED] if pairs is not None else [],
        odd_total=len(pairs.odd()) if pairs is not None else 0,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pairs:
    """Granules with both figures; arrays have shape (n,), all in percent."""

    granule: NDArray[np.object_]
    catalogue: Floats
    measured: Floats
    coverage: Floats

    @classmethod
    def of(cls, folder: Folder) -> _Pairs | None:
        if folder.screening is None or folder.scenes is None:
            return None
        ok = with_state(folder.screening, "ok")
        said = dict(zip(folder.scenes["granule_id"].to_pylist(), folder.scenes["cloud_cover"].to_pylist(), strict=True))
        granule = np.array(ok["granule_id"].to_pylist(), dtype=object)
        catalogue = np.array([_percent(said.get(name)) for name in granule], dtype=np.float64)
        measured, coverage = (_column(ok, name) for name in ("cloud_cover", "spatial_coverage"))
        both = np.isfinite(catalogue) & np.isfinite(measured)
        return cls(granule=granule[both], catalogue=catalogue[both], measured=measured[both], coverage=coverage[both])

    @property
    def sparse(self) -> NDArray[np.bool_]:
        """Covers little of its tile, in an archive whose granules cover more."""
        usual = float(np.median(self.coverage)) if self.coverage.size else 0.0
        return np.asarray(self.coverage < min(SPARSE, usual / 4))

    @property
    def far(self) -> NDArray[np.bool_]:
        return np.asarray(np.abs(self.catalogue - self.measured) > FAR)

    def odd(self) -> list[Odd]:
        """Granules whose figure is wrong, or true of next to nothing; the worst first."""
        chosen = np.flatnonzero(self.far | (self.sparse & (self.catalogue <= FAR)))
        gap = np.abs(self.catalogue - self.measured)[chosen]
        order = chosen[np.lexsort((self.coverage[chosen], -gap))]
        return [
            Odd(
                granule=str(self.granule[i]),
                catalogue=f"{self.catalogue[i]:.0f} %",
                measured=f"{self.measured[i]:.0f} %",
                why=self._why(i),
            )
            for i in order.tolist()
        ]

    def _why(self, i: int) -> str:
        parts = []
        if self.far[i]:
            parts.append(f"the catalogue is {abs(self.catalogue[i] - self.measured[i]):.0f} points off")
        if self.sparse[i]:
            parts.append(f"covers only {self.coverage[i]:.0f} % of its tile")
        return "; ".join(parts)


def _percent(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else float("nan")


def _column(table: pa.Table, name: str) -> Floats:
    return np.asarray(table[name].to_numpy(), dtype=np.float64)


def _refusals(folder: Folder) -> list[tuple[str, str]]:
    """(granule, cause) of the granules that could not be used, from the table and the card."""
    noted = {
        row.text("granule") or "?": row.text("cause") or "no cause given"
        for row in folder.card.part("screening").rows("refused")
    }
    if folder.screening is not None:
        bad = with_state(folder.screening, "ok", but=True)
        noted |= dict(zip(bad["granule_id"].to_pylist(), bad["state"].to_pylist(), strict=True))
    return sorted(noted.items())


def _by_cause(refusals: Sequence[tuple[str, str]]) -> list[tuple[str, Sequence[str], int]]:
    counts = Counter(cause for _, cause in refusals)
    return [
        (cause, [granule for granule, why in refusals if why == cause][:3], count)
        for cause, count in counts.most_common(MOST_LISTED)
    ]


def _scatter(pairs: _Pairs) -> Markup:
    """Catalogue cloud against measured cloud; the diagonal is agreement."""
    left, top, side = 56.0, 10.0, 300.0
    drawn = [svg.element("rect", x=left, y=top, width=side, height=side, class_="plot")]
    for value in (0, 25, 50, 75, 100):
        at = side * value / 100
        drawn += [svg.line(left + at, top, left + at, top + side, "grid")]
        drawn += [svg.line(left, top + at, left + side, top + at, "grid")]
        drawn += [svg.text(left + at, top + side + 18, str(value), anchor="middle")]
        drawn += [svg.text(left - 8, top + side - at + 4, str(value), anchor="end")]
    drawn.append(svg.line(left, top + side, left + side, top, "diagonal"))
    x, y = left + side * pairs.catalogue / 100, top + side * (1 - pairs.measured / 100)
    odd = pairs.far | (pairs.sparse & (pairs.catalogue <= FAR))
    drawn.append(_cloud_of_dots(pairs, x, y, ~odd, left, top, side))
    worst = np.flatnonzero(odd)[:MOST_DOTS]
    drawn.append(svg.group([_dot(pairs, x, y, i, 4.5) for i in worst.tolist()], class_="dots odd"))
    drawn.append(svg.text(left + side / 2, top + side + 38, "cloud in the catalogue, %", anchor="middle"))
    turned = svg.text(0, 0, "cloud measured from the mask, %", anchor="middle")
    drawn.append(svg.group([turned], transform=f"translate(14 {top + side / 2:g}) rotate(-90)"))
    title = f"Cloud cover of {pairs.granule.size} granules: catalogue against measurement; {int(odd.sum())} stand out"
    return svg.picture(left + side + 16, top + side + 48, title, drawn, class_="figure square")


def _cloud_of_dots(
    pairs: _Pairs, x: Floats, y: Floats, chosen: NDArray[np.bool_], left: float, top: float, side: float
) -> Markup:
    """Agreeing granules: one dot each, or a raster of where there are any when they are many."""
    rows = np.flatnonzero(chosen)
    if rows.size <= MOST_DOTS:
        return svg.group([_dot(pairs, x, y, i, 3.0) for i in rows.tolist()], class_="dots fine")
    cells = np.zeros((101, 101), dtype=np.uint8)
    cells[100 - np.round(pairs.measured[rows]).astype(int), np.round(pairs.catalogue[rows]).astype(int)] = 1
    return svg.element("image", href=png(cells, ["#4d8fcc"]), x=left, y=top, width=side, height=side)


def _dot(pairs: _Pairs, x: Floats, y: Floats, i: int, radius: float) -> Markup:
    words_of = f"{pairs.granule[i]}: {pairs.catalogue[i]:.0f} % in the catalogue, {pairs.measured[i]:.0f} % measured, "
    title = svg.element("title", words_of + f"{pairs.coverage[i]:.0f} % of the tile covered")
    return svg.element("circle", title, cx=float(x[i]), cy=float(y[i]), r=radius)
