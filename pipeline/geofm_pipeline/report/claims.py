"""What may be said about a dataset: the eight claims in their exact words, each ticked, limited, or not in this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from geofm_pipeline.report import words
from geofm_pipeline.report.diagnosis import Diagnosis
from geofm_pipeline.report.evenness import LEAST_SAMPLES
from geofm_pipeline.report.folder import Folder
from geofm_pipeline.report.ground import HELD_OUT
from geofm_pipeline.report.information import moved
from geofm_sampling.estimation import SIMULATED_COVERAGE

State = Literal["holds", "limited", "lacking"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim."""

    words: str
    """The claim, in the words that hold."""
    state: State
    """holds; limited (see the remark); lacking: not in this dataset."""
    remark: str = ""
    """What limits it or where to see it, one or two sentences."""


def claims(folder: Folder, found: Diagnosis) -> Sequence[Claim]:
    """The eight claims, as far as the run went."""
    return [
        _chances(folder),
        _totals(folder),
        _redundancy(folder),
        Claim(
            words="Same seed and frame, same sample, whatever the workers.",
            state="holds",
            remark="Random numbers are hashes of the seed and the unit; repeating its commands proves it.",
        ),
        _prefixes(found),
        _clouds(folder, found),
        _held_out(folder),
        _coverage(folder),
    ]


def _chances(folder: Folder) -> Claim:
    """A sample smaller than its strata leaves some of them out, and that is said."""
    said = "Every frame unit had a known, non-zero phase-1 chance."
    if not folder.chances:
        return Claim(words=said, state="lacking", remark="Nothing was planned yet.")
    without = [h for h in folder.frame_units if folder.chances.get(h, (0.0, 0.0))[1] <= 0]
    if not without:
        split = " Over the split too: ground in held-out blocks and buffers could have been for training."
        return Claim(words=said, state="holds", remark="Column pi1." + (split if folder.has_heldout else ""))
    units = words.count_of(sum(folder.frame_units[h] for h in without), "unit")
    return Claim(
        words=said,
        state="limited",
        remark=f"Except the {units} of {words.count_of(len(without), 'stratum', 'strata')} that the plan gave no "
        "sample: nothing is said about them.",
    )


def _totals(folder: Folder) -> Claim:
    said = "Weighted totals describe the observable population, unbiased before raking and trimming."
    samples = folder.training_samples
    if samples is None:
        return Claim(words=said, state="lacking", remark="No weights were published yet.")
    states = samples["state"].to_pylist()
    strata = samples["stratum"].to_pylist()
    written = {h for h, state in zip(strata, states, strict=True) if state == "written"}
    remarks = []
    if empty := set(folder.frame_units) - written:
        remarks.append(
            f"For the strata that have chips ({len(empty)} of {len(folder.frame_units)} have none: units there were "
            "not observable, or all their chips could not be read)."
        )
    if failed := len(states) - states.count("written"):
        remarks.append(
            f"{words.count_of(failed, 'drawn unit')} could not be read; the written ones of the same stratum carry "
            "their weight, as if failures struck at random within it."
        )
    weight, design = samples["weight"].to_numpy(), samples["weight_design"].to_numpy()
    if (abs(weight - design) > 1e-9 * abs(design)).any():
        remarks.append("The column weight is raked or trimmed, weight_design is not.")
    return Claim(words=said, state="limited" if empty or failed else "holds", remark=" ".join(remarks))


def _redundancy(folder: Folder) -> Claim:
    said = "Redundant places got lower probability, recorded, never zero."
    if not moved(folder):
        return Claim(words=said, state="lacking", remark="Every observable unit of a stratum had the same chance.")
    return Claim(words=said, state="holds", remark="Columns duplicates, novelty and pi2_given_phase1.")


def _prefixes(found: Diagnosis) -> Claim:
    said = "Prefixes are valid, spatially balanced samples."
    balance = found.looked_balance
    remark = "True of the first ranks of every stratum, however many."
    if balance is not None and balance.samples >= LEAST_SAMPLES:
        remark += f" The units looked at are {words.number(balance.ratio, 2)} times as uneven as simple random ones."
    return Claim(words=said, state="holds", remark=remark)


def _clouds(folder: Folder, found: Diagnosis) -> Claim:
    said = "The toll of clouds is shown per stratum, full-population weights rest on stated classes."
    if folder.response is None:
        return Claim(words=said, state="lacking", remark="Nothing was looked at yet.")
    remark = "weight_full assumes that, within a stratum, units that could not be observed are like the others."
    if found.observable is not None:
        remark = f"About {words.percent(found.observable[0])} of the training ground is observable; {remark}"
    return Claim(words=said, state="holds", remark=remark)


def _held_out(folder: Folder) -> Claim:
    record = folder.records.get(folder.waves[0].number)
    buffer = record.part("design").number("buffer_km") if record is not None else None
    chips = 0 if folder.samples is None else folder.samples_of(HELD_OUT).num_rows
    distance = f"{buffer:g}" if buffer is not None and chips else "b"
    said = f"Held-out loss comes from a block sample ≥ {distance} km away, with an interval."
    if not chips:
        return Claim(words=said, state="lacking", remark="No chips of held-out blocks were drawn.")
    remark = f"{words.count_of(chips, 'chip')} of held-out blocks; intervals must count blocks, not chips."
    return Claim(words=said, state="holds", remark=remark)


def _coverage(folder: Folder) -> Claim:
    """The share is measured with the estimators, not with a dataset; it is published with their documentation."""
    low, high = SIMULATED_COVERAGE
    said = f"Interval coverage was simulated at {100 * low:.0f} to {100 * high:.0f} %."
    if folder.samples is None:
        return Claim(words=said, state="lacking", remark="There are no samples to estimate from yet.")
    return Claim(words=said, state="holds", remark="Nominal 95 %, with few heavy weights less; see docs/estimation.md.")
