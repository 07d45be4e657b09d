"""Hrefs by template: one text with `{id}` and `{band}` per granule, and what differs from it.

An archive has few templates. Those met before are filled for a whole batch at once and compared; granules that none of
them serves wholly are looked at one by one, which gives the same answer (0.7 against 20 µs per granule).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from geofm_pipeline.hls.bands import BANDS, FMASK, SENSOR_CODE, SENSORS, Sensor, band_file

NEEDED: dict[Sensor, tuple[str, ...]] = {
    sensor: tuple(band_file(sensor, band) for band in (*BANDS, FMASK)) for sensor in SENSORS
}
"""Asset keys of the six bands and Fmask."""
_TRIES = 4
"""New templates that are tried on one batch; the rest of it is looked at one by one."""
_WORTH_IT = 0.9
"""A new template must leave less than this part over, or none is tried after it: some archives have one per granule."""

_NOTHING = pa.scalar("")
"""What pieces of an href are joined by."""


@dataclass(frozen=True, kw_only=True)
class Located:
    """Where the assets of some granules are."""

    template: NDArray[np.int32]
    """Number of each granule's template in :attr:`Templates.texts`."""
    overrides: dict[int, list[tuple[str, str]]]
    """Row → (asset key, href) where the template is wrong; rows without any are left out."""
    missing: dict[int, list[str]]
    """Row → asset keys that are absent; rows without any are left out."""


@dataclass(kw_only=True)
class Templates:
    """Templates met so far, and how hrefs are told by them."""

    texts: list[str] = field(default_factory=list)
    """Templates in the order in which they were met; '' serves no asset."""
    _numbers: dict[str, int] = field(default_factory=dict)
    _recent: dict[Sensor, list[str]] = field(default_factory=dict)

    def locate(self, ids: pa.Array, sensors: NDArray[np.int64], assets: Mapping[str, pa.Array]) -> Located:
        """Templates, overrides and absences of granules given by column; `sensors` as in SENSOR_CODE."""
        found = Located(template=np.full(len(ids), -1, dtype=np.int32), overrides={}, missing={})
        for sensor in SENSORS:
            rows = np.flatnonzero(sensors == SENSOR_CODE[sensor])
            if rows.size:
                self._locate_sensor(sensor, rows, ids, assets, found)
        return found

    def number(self, text: str) -> int:
        """Number of a template, a new one where it was not met before."""
        if text not in self._numbers:
            self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return self._numbers[text]

    def _locate_sensor(
        self, sensor: Sensor, rows: NDArray[np.int64], ids: pa.Array, assets: Mapping[str, pa.Array], found: Located
    ) -> None:
        recent = self._recent.setdefault(sensor, [])
        names = {key: assets[key] for key in NEEDED[sensor] if key in assets}
        left = rows
        if len(names) == len(NEEDED[sensor]):
            for text in list(recent):
                left = self._by_template(text, left, ids, names, found)
            for _ in range(_TRIES):
                if not left.size:
                    return
                text = _template_of(int(left[0]), ids, names)
                if text in recent or not _is_plain(text):
                    break
                recent[:] = [text, *recent[: _TRIES - 1]]
                before, left = left.size, self._by_template(text, left, ids, names, found)
                if left.size > _WORTH_IT * before:
                    break
        self._one_by_one(sensor, left, ids, assets, found)

    def _by_template(
        self, text: str, rows: NDArray[np.int64], ids: pa.Array, names: Mapping[str, pa.Array], found: Located
    ) -> NDArray[np.int64]:
        """Note the rows whose assets all follow the template; the other rows."""
        if not rows.size:
            return rows
        whole = rows.size == len(ids)
        some = pa.array(rows)
        chosen = ids if whole else ids.take(some)
        alike = pa.array(np.ones(rows.size, dtype=bool))
        for key, hrefs in names.items():
            pieces = text.replace("{band}", key).split("{id}")
            parts = [part for piece in pieces for part in (pa.scalar(piece), chosen)][:-1]
            wanted = pc.call_function("binary_join_element_wise", [*parts, _NOTHING]) if len(parts) > 1 else parts[0]
            equal = pc.call_function("equal", [hrefs if whole else hrefs.take(some), wanted])
            alike = pc.call_function("and", [alike, pc.fill_null(equal, False)])
        fits = alike.to_numpy(zero_copy_only=False)
        if fits.any():
            found.template[rows[fits]] = self.number(text)
        rest: NDArray[np.int64] = rows[~fits]
        return rest

    def _one_by_one(
        self, sensor: Sensor, rows: NDArray[np.int64], ids: pa.Array, assets: Mapping[str, pa.Array], found: Located
    ) -> None:
        if not rows.size:
            return
        some = pa.array(rows)
        columns = {key: hrefs.take(some).to_pylist() for key, hrefs in assets.items()}
        for at, (row, granule_id) in enumerate(zip(rows.tolist(), ids.take(some).to_pylist(), strict=True)):
            hrefs = needed_hrefs(sensor, {key: href for key, column in columns.items() if (href := column[at])})
            text = template(granule_id, hrefs)
            found.template[row] = self.number(text)
            strays = [(key, href) for key, href in hrefs.items() if href != filled(text, granule_id, key)]
            absent = [key for key in NEEDED[sensor] if key not in hrefs]
            if strays:
                found.overrides[row] = strays
            if absent:
                found.missing[row] = absent


def needed_hrefs(sensor: Sensor, assets: Mapping[str, str]) -> dict[str, str]:
    """Hrefs of the six bands and Fmask by file key; dialects that name assets `blue` are read by their file names."""
    keys = NEEDED[sensor]
    found = {key: assets[key] for key in keys if key in assets}
    if len(found) < len(keys):
        files = {file_key(href): href for href in assets.values() if not href.startswith("s3://")}
        found = {key: href for key in keys if (href := found.get(key) or files.get(key))}
    return found


def template(granule_id: str, hrefs: Mapping[str, str]) -> str:
    """The href with `{id}` and `{band}` that serves most assets; '' when no href holds its key."""
    forms: Counter[str] = Counter()
    for key, href in hrefs.items():
        head, found, tail = href.rpartition(key)
        if found:
            forms[f"{head}{{band}}{tail}".replace(granule_id, "{id}")] += 1
    return forms.most_common(1)[0][0] if forms else ""


def filled(text: str, granule_id: str, key: str) -> str:
    """The href of an asset by a template."""
    return text.replace("{id}", granule_id).replace("{band}", key)


def _template_of(row: int, ids: pa.Array, names: Mapping[str, pa.Array]) -> str:
    hrefs = {key: column[row].as_py() for key, column in names.items()}
    return template(str(ids[row]), {key: href for key, href in hrefs.items() if href})


_ALL_KEYS = sorted({key for keys in NEEDED.values() for key in keys})


def _is_plain(text: str) -> bool:
    """Whether every granule whose hrefs are the filled template would have been given this very template.

    Not so where a key follows `{band}`, since the last one is taken for the band, or another granule is named in it.
    """
    head, found, tail = text.rpartition("{band}")
    return bool(found) and "{band}" not in head and "HLS." not in text and not any(key in tail for key in _ALL_KEYS)


def file_key(href: str) -> str:
    """`B04` of `…/HLS.S30.T19LDD.2022166T144741.v2.0.B04.tif?signature`; '' for other files."""
    name = href.split("?")[0].rsplit("/", 1)[-1]
    stem, dot, suffix = name.rpartition(".")
    return stem.rpartition(".")[2] if dot and suffix.lower() in {"tif", "tiff"} else ""
