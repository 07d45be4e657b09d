"""The page of a dataset with several waves counts all of them, or says which one a figure is of."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from geofm_pipeline.report import diagnostics, render_report, words
from geofm_pipeline.report.claims import claims
from geofm_pipeline.report.contact import contact_sheet
from geofm_pipeline.report.diagnosis import diagnose
from geofm_pipeline.report.folder import read_folder
from geofm_pipeline.workspace import Workspace
from geofm_sampling import plan_record

from .fake_dataset import STORE_DIGEST, Fake, make_dataset
from .fake_store import CAUSE, FAILED, valid_counts
from .fake_waves import PHASES, add_wave, line_of, without_anything_observable
from .page import Page

KEPT = 25
HELD = 16


@dataclass(frozen=True, kw_only=True)
class Waves:
    """A dataset of three waves, the second cut short, the third without anything observable."""

    root: Path
    page: Page
    first: Fake


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    """One wave with held-out blocks and overviews."""
    return make_dataset(tmp_path_factory.mktemp("one") / "bay", rich=True)


@pytest.fixture(scope="module")
def three(rich: Fake, tmp_path_factory: pytest.TempPathFactory) -> Waves:
    root = tmp_path_factory.mktemp("three") / "bay"
    shutil.copytree(rich.root, root)
    add_wave(root, 2, kept=KEPT)
    add_wave(root, 3, empty=True)
    return Waves(root=root, page=Page.of(render_report(root)), first=rich)


def _copy(fake: Fake, to: Path) -> Path:
    shutil.copytree(fake.root, to)
    return to


def _samples(root: Path) -> pa.Table:
    return pq.read_table(root / "samples.parquet")


def _written(table: pa.Table) -> NDArray[np.bool_]:
    return np.asarray(np.array(table["state"].to_pylist()) == "written")


def _bytes(store: Path) -> int:
    return sum(file.stat().st_size for file in store.rglob("*") if file.is_file())


def test_chips_asked_for_are_those_of_all_waves(three: Waves) -> None:
    """Written chips of all waves stand beside the samples that all waves asked for, held-out ones included."""
    assert f"{3 * (40 + HELD)} asked for" in three.page.sections["top"]
    assert f"chips written {_written(_samples(three.root)).sum()} " in three.page.sections["top"]
    assert three.page.unclosed == []


def test_each_wave_has_a_line(three: Waves) -> None:
    """The table of waves counts each wave's tables; a dataset of one wave has no such table."""
    first, second, third = three.page.tables["asked"][0][1:]
    samples = _samples(three.root)
    wave = samples["wave"].to_numpy()
    assert [line[6] for line in (first, second, third)] == [
        str((_written(samples) & (wave == number)).sum()) for number in (1, 2, 3)
    ]
    looked = pq.read_metadata(three.root / "response-0003.parquet").num_rows
    assert third[2:] == [str(40 + HELD), str(looked), "0", "0", "0", "–", "Wave 3 found nothing observable."]
    render_report(three.first.root)
    assert "The waves of this dataset" not in Page.of(three.first.root / "report.html").sections["asked"]


def test_every_command_is_listed_in_order(three: Waves, tmp_path: Path) -> None:
    """All lines that wrote something stand there in order; dry runs only where nothing else ran."""
    said = three.page.sections["asked"]
    assert "these 3 lines, run one after the other, make the same stores again, byte for byte" in said
    lines = ["geofm-sample --region bay --years 2022 --samples 40", line_of(2), line_of(3)]
    assert [said.index(line) for line in lines] == sorted(said.index(line) for line in lines)
    root = _copy(three.first, tmp_path / "dry")
    add_wave(root, 2, until="plan", dry=True)
    page = Page.of(render_report(root))
    assert "this line makes the same store again, byte for byte" in page.sections["asked"]
    assert line_of(2, dry=True) not in page.sections["asked"]
    card = json.loads((root / "card.json").read_text())
    card["commands"] = card["commands"][1:]
    (root / "card.json").write_text(json.dumps(card))
    assert "this line makes the same plan again" in Page.of(render_report(root)).sections["asked"]


def test_size_and_digests_are_those_of_all_stores(three: Waves) -> None:
    """The size on disk sums the files of all stores, and each store's digest is listed under its name."""
    sizes = [_bytes(three.root / name) for name in ("store.zarr", "store-0002.zarr")]
    assert f"on disk {words.size(sum(sizes))} losslessly compressed, 2 stores" in _plain(three.page.sections["top"])
    digests = {row[0]: row[1] for table in three.page.tables["checks"] for row in table}
    assert digests["store.zarr"] == STORE_DIGEST
    assert digests["store-0002.zarr"] == "2" * 64
    assert digests["plan-0003.parquet"] == "d" * 64


def test_band_statistics_are_those_of_all_training_chips(three: Waves) -> None:
    """Mean and standard deviation over the valid pixels of both stores together, by brute force."""
    samples = _samples(three.root)
    counts = valid_counts(samples.filter(pa.array(samples["split"].to_numpy() == 0))["unit"].to_pylist())
    for row, band in zip(three.page.tables["bands"][0][1:], counts, strict=True):
        assert row[1:3] == [f"{band.mean() / 1e4:.4f}", f"{band.std() / 1e4:.4f}"]
        assert row[4] == f"{band.size:,}"
    assert "not among them" not in three.page.sections["bands"]


def test_a_wave_without_statistics_is_named(three: Waves, tmp_path: Path) -> None:
    """While the store of a wave is not sealed, the bands say that its chips are not among them."""
    root = tmp_path / "unsealed"
    shutil.copytree(three.first.root, root)
    add_wave(root, 2, until="response")
    page = Page.of(render_report(root))
    assert "those of wave 2 are not among them" in page.sections["bands"]
    assert "Wave 2 is unfinished: its command continues it." in page.sections["top"]


def test_reading_is_divided_by_the_chips_of_its_wave(three: Waves) -> None:
    """The card's figures are of the wave that wrote last; they are divided by its chips and named after it."""
    samples = _samples(three.root)
    chips = int((_written(samples) & (samples["wave"].to_numpy() == 2)).sum())
    rows = {row[0]: row[1:] for row in three.page.tables["reading"][0]}
    assert rows[""] == ["in wave 2", "per chip of wave 2"]
    assert rows["requests for blocks"] == ["720", f"{720 / chips:.1f}"]
    assert rows["bytes kept in the store"][0] == _plain(words.size(_bytes(three.root / "store-0002.zarr")))


def test_chips_that_failed_are_listed_for_every_wave(three: Waves) -> None:
    """Tombstones of all waves are named, not only those of the wave that wrote last."""
    samples = _samples(three.root)
    failed = [str(unit) for unit in samples["unit"].filter(pa.array(~_written(samples))).to_pylist()]
    assert len(failed) == 2 * len(FAILED)
    assert three.page.tables["reading"][2][1:] == [[unit, CAUSE] for unit in failed]


def test_the_frontier_shares_out_the_samples_of_all_waves(three: Waves) -> None:
    """The trade-off is computed for the training samples of all waves, and says that they are taken together."""
    record = plan_record(three.first.plan)
    total = 3 * int(record.target[record.split == 0].sum())
    assert (
        f"for {total} samples, as if those of the 3 waves had been shared out at once"
        in (three.page.sections["tradeoff"])
    )
    found = diagnose(read_folder(three.root)).tradeoff
    assert found is not None
    assert found.samples == total


def test_an_empty_wave_is_said_and_breaks_nothing(three: Waves) -> None:
    """A wave that found nothing observable has no store; the page says so and the dataset is complete."""
    assert "Wave 3 found nothing observable." in three.page.sections["asked"]
    assert "Complete and verified" in three.page.sections["top"]
    json.dumps(diagnostics(three.root), allow_nan=False)


@pytest.mark.parametrize("rows", [None, 0])
def test_a_first_wave_that_is_empty_has_a_page(rich: Fake, tmp_path: Path, rows: int | None) -> None:
    """Where the only wave found nothing, or looked at nothing, the page says so at the top instead of failing."""
    root = _copy(rich, tmp_path / "nothing")
    shutil.rmtree(root / "store.zarr")
    (root / "samples.parquet").unlink()
    response = without_anything_observable(pq.read_table(root / "response.parquet"))
    pq.write_table(response.slice(0, rows), root / "response.parquet")
    card = json.loads((root / "card.json").read_text())
    (root / "card.json").write_text(
        json.dumps({name: value for name, value in card.items() if name not in ("store", "read", "verify")})
    )
    page = Page.of(render_report(root))
    assert "Nothing observable was found: no chip was drawn or written." in page.sections["top"]
    assert "Wave 1 found nothing observable." in page.sections["asked"]
    json.dumps(diagnostics(root), allow_nan=False)


def test_an_extension_that_was_only_planned_changes_no_figure(rich: Fake, tmp_path: Path) -> None:
    """A dry run of an extension leaves the dataset complete, its samples uncounted, and is said."""
    root = _copy(rich, tmp_path / "planned")
    add_wave(root, 2, until="plan", dry=True)
    page = Page.of(render_report(root))
    assert f"{40 + HELD} asked for" in page.sections["top"]
    assert "Complete and verified" in page.sections["top"]
    assert "Wave 2 is planned only." in page.sections["top"]
    assert page.tables["asked"][0][2][6] == "–"
    before = Page.of(render_report(rich.root))
    assert page.sections["funnel"].split("What the plan")[0] == before.sections["funnel"].split("What the plan")[0]
    for name in ("maps", "strata", "spread", "selftest", "tradeoff", "heldout", "bands"):
        assert page.sections[name] == before.sections[name], name


def test_redundancy_is_ticked_by_chances_not_by_sizes(rich: Fake, tmp_path: Path) -> None:
    """Sizes that moved no chance do not tick the claim, and no relative chance is shown."""
    folder = read_folder(rich.root)
    assert claims(folder, diagnose(folder))[2].state == "holds"
    assert "relative chance within its stratum" in Page.of(render_report(rich.root)).sections["information"]
    root = _copy(rich, tmp_path / "random")
    response = pq.read_table(root / "response.parquet")
    even = pa.array(np.where(response["observable"].to_numpy(zero_copy_only=False), 0.5, np.nan))
    at = response.schema.get_field_index("pi2_given_phase1")
    pq.write_table(response.set_column(at, "pi2_given_phase1", even), root / "response.parquet")
    folder = read_folder(root)
    claim = claims(folder, diagnose(folder))[2]
    assert claim.state == "lacking"
    assert claim.remark == "Every observable unit of a stratum had the same chance."
    said = Page.of(render_report(root)).sections["information"]
    assert "relative chance" not in said
    assert "lower probability" not in said
    assert "here every observable unit of a stratum had the same chance" in said


def test_chances_that_differ_between_waves_alone_do_not_tick_it(rich: Fake, tmp_path: Path) -> None:
    """π₂ may differ from wave to wave for all units of a stratum: that is no lower chance for redundant places."""
    root = _copy(rich, tmp_path / "two")
    add_wave(root, 2)
    for name, chance in (("response", 0.5), ("response-0002", 0.25)):
        table = pq.read_table(root / f"{name}.parquet")
        column = pa.array(np.full(table.num_rows, chance))
        at = table.schema.get_field_index("pi2_given_phase1")
        pq.write_table(table.set_column(at, "pi2_given_phase1", column), root / f"{name}.parquet")
    folder = read_folder(root)
    assert claims(folder, diagnose(folder))[2].state == "lacking"


def test_shares_of_waves_need_not_add_up_to_one(rich: Fake, tmp_path: Path) -> None:
    """Effective shares λ that sum to 1.1 in a group are taken as they are: averages stay on the page."""
    root = _copy(rich, tmp_path / "shares")
    add_wave(root, 2)
    samples = _samples(root)
    phases = json.loads(samples.schema.metadata[PHASES])
    shares = {1: 0.7, 2: 0.4}
    phases = [row | {"lambda": shares[row["wave"]]} for row in phases]
    pq.write_table(samples.replace_schema_metadata({PHASES: json.dumps(phases)}), root / "samples.parquet")
    assert diagnose(read_folder(root)).averages
    assert "Averages over the observable ground" in Page.of(render_report(root)).sections["probabilities"]


def test_held_out_chips_are_marked_on_the_sheet(three: Waves) -> None:
    """A chip for evaluation says so beside its stratum, any other does not; with waves, samples name theirs."""
    sheet = contact_sheet(read_folder(three.root))
    assert sheet is not None
    samples = _samples(three.root)
    split = dict(zip(map(str, samples["unit"].to_pylist()), samples["split"].to_pylist(), strict=True))
    assert [chip.held_out for chip in sheet.chips] == [split[chip.unit] == 1 for chip in sheet.chips]
    body = re.split(r'<section id="chips">', three.page.html)[1].split("</section>")[0]
    assert body.count("</b> · held out") == sum(chip.held_out for chip in sheet.chips) > 0
    assert {chip.wave for chip in sheet.chips} == {1, 2}
    assert all(f"sample {chip.index} of wave {chip.wave}" in body for chip in sheet.chips)


def test_a_store_whose_sums_are_no_numbers_is_named(rich: Fake, tmp_path: Path) -> None:
    """Sums that cannot be read are a trouble that is said, and the card's statistics stand in for them."""
    root = _copy(rich, tmp_path / "sums")
    document = Workspace(root=root).store / "zarr.json"
    found = json.loads(document.read_text())
    found["attributes"]["geofm"]["statistics"]["train"]["bands"]["blue"]["sum"] = "many"
    document.write_text(json.dumps(found))
    page = Page.of(render_report(root))
    assert "store.zarr is there but could not be read" in page.sections["asked"]
    assert page.tables["bands"][0][1][1] == "0.0500"


def _plain(text: str) -> str:
    return text.replace("\u202f", " ").replace("\u00a0", " ")
