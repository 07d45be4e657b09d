"""The diagnostics in the report: figures agree with the tables, claims with the facts, and absence is said."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geofm_pipeline.report import diagnostics, render_report
from geofm_pipeline.report.claims import claims
from geofm_pipeline.report.diagnosis import diagnose
from geofm_pipeline.report.evidence import MOST_ROWS, label, read_evidence
from geofm_pipeline.report.folder import read_folder
from geofm_pipeline.report.heldout import EARTH_KM
from geofm_sampling import plan_record
from geofm_sampling.diagnostics import effective_strata, near_duplicate_share
from geofm_sampling.selftest import Check, Sums
from geofm_sampling.similarity import RADIUS

from .conftest import Reported
from .fake_dataset import Fake, make_dataset
from .page import Page

WORDS = (
    "Every frame unit had a known, non-zero phase-1 chance.",
    "Weighted totals describe the observable population, unbiased before raking and trimming.",
    "Redundant places got lower probability, recorded, never zero.",
    "Same seed and frame, same sample, whatever the workers.",
    "Prefixes are valid, spatially balanced samples.",
    "The toll of clouds is shown per stratum, full-population weights rest on stated classes.",
    "Held-out loss comes from a block sample ≥ 5 km away, with an interval.",
    "Interval coverage was simulated at 93 to 98 %.",
)
FORBIDDEN = (
    *("the inclusion probability of π*", "representative", "unbiased training", "corrects for clouds"),
    *("effective training", "no leakage", "optimal", "exact inclusion"),
)


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    """A finished dataset with held-out blocks and overviews."""
    fake = make_dataset(tmp_path_factory.mktemp("rich") / "bay", rich=True)
    render_report(fake.root)
    return fake


@pytest.fixture(scope="module")
def page(rich: Fake) -> Page:
    return Page.of(rich.root / "report.html")


@pytest.fixture(scope="module")
def noted(rich: Fake) -> dict[str, object]:
    """What card.json would hold."""
    found: dict[str, object] = json.loads(json.dumps(diagnostics(rich.root), allow_nan=False))
    return found


def _written(root: Path, split: int) -> pa.Table:
    samples = pq.read_table(root / "samples.parquet")
    return samples.filter(pa.array(samples["split"].to_numpy() == split))


def test_every_section_has_data_and_says_how_to_read_it(page: Page) -> None:
    """With overviews and held-out ground no diagnostic is missing, and each has a sentence on how to read it."""
    for name in ("spread", "selftest", "tradeoff", "information", "heldout"):
        body = re.split(rf'<section id="{name}">', page.html)[1].split("</section>")[0]
        assert 'class="how"' in body, name
        assert 'class="absent"' not in body, name
    assert page.unclosed == []


def test_known_totals_are_those_of_the_frame(rich: Fake) -> None:
    """Sums per group, units and area-weighted covariates are those of the training and held-out rows of the frame."""
    evidence = read_evidence(read_folder(rich.root))
    assert evidence is not None
    assert evidence.share == 1
    frame = pa.concat_tables([pq.read_table(path) for path in sorted((rich.root / "frame").glob("[0-9]*.parquet"))])
    split, stratum = frame["split"].to_numpy(), frame["stratum"].to_numpy()
    area = frame["area_km2"].to_numpy().astype(np.float64)
    for i, (_, s, h) in enumerate(evidence.groups):
        mine = (split == s) & (stratum == h)
        assert evidence.units[i] == mine.sum()
        assert evidence.sums.total[i, 0] == pytest.approx(area[mine].sum())
        assert evidence.sums.total[i, 1] == pytest.approx((area * frame["lon"].to_numpy())[mine].sum())
        for j, column in enumerate(evidence.tested):
            values = frame[evidence.names[column]].to_numpy().astype(np.float64)
            assert evidence.sums.total[i, 3 + j] == pytest.approx((area * values)[mine].sum())
    assert evidence.pool.unit.size == (split >= 0).sum()
    assert len(evidence.labels()) == 11


def test_the_self_test_misses_when_weights_lie(rich: Fake, tmp_path: Path) -> None:
    """With honest weights the misses stay within the limits; a look thinned out by place without saying so is found."""
    found = diagnose(read_folder(rich.root))
    assert found.selftest is not None
    assert sum(check.misses for check in found.selftest.looked) <= 2
    root = tmp_path / "lie"
    shutil.copytree(rich.root, root)
    response = pq.read_table(root / "response.parquet")
    frame = rich.frame
    lon = frame["lon"].to_numpy()[np.searchsorted(frame["unit"].to_numpy(), response["unit"].to_numpy())]
    stratum = response["stratum"].to_numpy()
    middle = {h: np.median(lon[stratum == h]) for h in np.unique(stratum)}
    west = np.array([x <= middle[h] for x, h in zip(lon, stratum, strict=True)])
    pq.write_table(response.filter(pa.array(west)), root / "response.parquet")
    worse = diagnose(read_folder(root)).selftest
    assert worse is not None
    longitude = {check.name: check for check in worse.looked}["longitude"]
    assert longitude.misses
    assert longitude.z < 0


def test_figures_of_the_card_agree_with_the_tables(rich: Fake, noted: dict[str, object]) -> None:
    """Effective strata, look-alikes, the chosen q and held-out blocks come out of the tables in another way."""
    _, counts = np.unique(_written(rich.root, 0)["stratum"].to_numpy(), return_counts=True)
    assert noted["effective_strata"] == pytest.approx(effective_strata(counts), rel=1e-5)
    response = pq.read_table(rich.root / "response.parquet")
    drawn = response.filter(pa.array((response["split"].to_numpy() == 0) & (response["shard"].to_numpy() >= 0)))
    share = near_duplicate_share(
        np.array(drawn["descriptor"].to_pylist()), drawn["stratum"].to_numpy().astype(np.int64), RADIUS
    )
    assert share is not None
    assert noted["near_duplicates"]["drawn"] == {"share": pytest.approx(share[0], rel=1e-5), "units": share[1]}  # type: ignore[index]
    record = plan_record(rich.plan)
    assert noted["q_frontier"]["power"] == record.design.power  # type: ignore[index]
    chosen = effective_strata(record.target[record.split == 0])
    assert noted["q_frontier"]["chosen"]["effective"] == pytest.approx(chosen, rel=1e-5)  # type: ignore[index]
    held = rich.frame.filter(pa.array(rich.frame["split"].to_numpy() == 1))
    assert noted["heldout"]["held_out"] == np.unique(held["block"].to_numpy()).size  # type: ignore[index]
    assert noted["heldout"]["chips"] == _written(rich.root, 1).num_rows  # type: ignore[index]


def test_held_out_chips_are_as_far_away_as_the_page_says(rich: Fake, noted: dict[str, object], page: Page) -> None:
    """The nearest pair of a training and a held-out chip, by the haversine formula over all pairs."""
    training, heldout = (_written(rich.root, split) for split in (0, 1))
    lon1, lat1, lon2, lat2 = (
        np.radians(table[name].to_numpy()) for table in (training, heldout) for name in ("lon", "lat")
    )
    half = np.sin((lat1[:, None] - lat2) / 2) ** 2
    half += np.cos(lat1)[:, None] * np.cos(lat2) * np.sin((lon1[:, None] - lon2) / 2) ** 2
    nearest = float((2 * EARTH_KM * np.arcsin(np.sqrt(half))).min())
    assert noted["heldout"]["nearest_km"] == pytest.approx(nearest, rel=1e-5)  # type: ignore[index]
    assert f"{nearest:.1f} km apart" in page.sections["heldout"]
    assert "footprints of training and held-out chips are at least 5 km apart" in page.sections["heldout"]


def test_strata_tables_count_training_and_held_out_ground_apart(rich: Fake, page: Page) -> None:
    """The matrix of every stage holds training ground, the held-out table the rest; buffer ground is in neither."""
    assert rich.response is not None
    split = rich.frame["split"].to_numpy()
    total = page.tables["strata"][-1][-1]
    looked = rich.response.table["split"].to_numpy()
    assert int(total[2].replace(",", "")) == (split == 0).sum()
    assert int(total[4].replace(",", "")) == (looked == 0).sum()
    rows = page.tables["heldout"][-1][1:]
    assert sum(int(row[1]) for row in rows) <= (split == 1).sum()
    assert f"{(split == -1).sum()} lie in the buffer" in page.sections["funnel"]


def test_the_eight_claims_in_their_words(rich: Fake, page: Page, reported: Reported) -> None:
    """All eight stand there in their exact words; what a dataset lacks is not ticked."""
    found = claims(read_folder(rich.root), diagnose(read_folder(rich.root)))
    assert tuple(claim.words for claim in found) == WORDS
    assert all(claim.words in page.sections["probabilities"] for claim in found)
    assert [claim.state for claim in found][2:] == ["holds"] * 6
    plain = claims(read_folder(reported.fake.root), diagnose(read_folder(reported.fake.root)))
    assert [claim.state for claim in plain] == [
        *("limited", "limited", "lacking", "holds", "holds", "holds", "lacking", "holds")
    ]
    assert plain[6].words.endswith("≥ b km away, with an interval.")


def test_no_word_promises_too_much(page: Page) -> None:
    """Words that promise more than holds are nowhere on the page."""
    text = " ".join(page.sections.values()).lower()
    assert [word for word in FORBIDDEN if word in text] == []


def test_a_large_frame_is_read_in_part_and_says_so(rich: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound whole tiles are left out, the self-test counts them as zero on both sides, and still holds."""
    monkeypatch.setattr("geofm_pipeline.report.evidence.MOST_ROWS", 900)
    monkeypatch.setattr("geofm_pipeline.report.evidence.POOL", 300)
    folder = read_folder(rich.root)
    evidence = read_evidence(folder)
    assert evidence is not None
    assert 0 < evidence.share < 1
    assert evidence.pool.unit.size < rich.frame.num_rows
    found = diagnose(folder)
    assert found.selftest is not None
    assert sum(check.misses for check in found.selftest.looked) <= 3
    assert MOST_ROWS == 2_000_000
    root = tmp_path / "part"
    shutil.copytree(rich.root, root)
    assert "of the frame takes part" in Page.of(render_report(root)).sections["selftest"]


def test_two_waves_are_tested_together(rich: Fake, tmp_path: Path) -> None:
    """A second wave over the same ground adds its looks; known totals are those of both, and nothing breaks."""
    root = tmp_path / "waves"
    shutil.copytree(rich.root, root)
    for name in ("plan", "response"):
        shutil.copy(root / f"{name}.parquet", root / f"{name}-0002.parquet")
    waves = [{"wave": number, "part": 1} for number in (1, 2)]
    (root / "commits.json").write_text(json.dumps({"schema": 2, "waves": waves, "files": {}}))
    folder = read_folder(root)
    once, twice = diagnose(read_folder(rich.root)), diagnose(folder)
    assert folder.response is not None
    assert rich.response is not None
    assert folder.response.num_rows == 2 * rich.response.table.num_rows
    assert once.selftest is not None
    assert twice.selftest is not None
    for one, two in zip(once.selftest.looked, twice.selftest.looked, strict=True):
        # The same look twice: the same estimate; averages keep their error, which two independent looks would not.
        assert two.known == pytest.approx(one.known * (2 if one.name == "area" else 1))
        assert two.z == pytest.approx(one.z * np.sqrt(2), rel=1e-6)
    assert "Is the sample spread evenly" in Page.of(render_report(root)).sections["spread"]


def test_a_frame_without_covariates_or_split_has_what_is_left(rich: Fake, tmp_path: Path) -> None:
    """Frames of an older layout, or without maps, give the place variables only and say what is missing."""
    root = tmp_path / "bare"
    shutil.copytree(rich.root, root)
    for path in (root / "frame").glob("[0-9]*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.drop_columns([n for n in table.column_names if n.startswith(("lc_", "wx_"))]), path)
    found = diagnose(read_folder(root))
    assert found.likeness is None
    assert found.selftest is not None
    assert {check.name for check in found.selftest.looked} <= {"area", "longitude", "latitude"}
    assert "neither land cover nor weather was given" in Page.of(render_report(root)).sections["spread"]


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("lc_10", ("tree", "share")),
        ("lc_7", ("class 7", "share")),
        ("wx_t01", ("temperature, Jan", "°C")),
        ("wx_p07", ("precipitation, Jul", "mm")),
    ],
)
def test_covariates_have_names(column: str, said: tuple[str, str]) -> None:
    """A reader sees land covers and months, not column names."""
    assert label(column) == said


def test_sums_and_checks_are_plain_records() -> None:
    """A check tells its z and whether an interval misses; one without room for error has no z."""
    check = Check(name="x", known=1.0, estimate=3.0, error=1.0)
    assert (check.z, check.misses) == (2.0, True)
    assert not dataclasses.replace(check, estimate=2.9).misses
    assert np.isnan(dataclasses.replace(check, error=0.0).z)
    assert Sums.none(2, 1).variance.tolist() == [[0.0], [0.0]]
