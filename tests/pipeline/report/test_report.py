"""The report says what the tables say, in one self-contained page, whatever the folder holds."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from geofm_pipeline.report import render_report, words
from geofm_pipeline.report.words import GLOSSARY, STATE_WORDS

from .conftest import Reported
from .fake_dataset import HOSTILE, STAGES, make_dataset, training_units
from .fake_store import CAUSE, FAILED, valid_counts
from .page import Page

SECTIONS = (
    "asked",
    "funnel",
    "chips",
    "maps",
    "strata",
    "clouds",
    "dates",
    "probabilities",
    "spread",
    "selftest",
    "tradeoff",
    "information",
    "heldout",
    "bands",
    "reading",
    "screening",
    "checks",
    "glossary",
)


def test_every_section_is_there_and_linked(reported: Reported) -> None:
    """The page has every section, each is reached from the list at the top, and every element is closed."""
    links = [attributes["href"] for tag, attributes in reported.page.tags if tag == "a"]
    assert links[: len(SECTIONS)] == [f"#{name}" for name in SECTIONS]
    assert set(SECTIONS) <= set(reported.page.sections)
    assert reported.page.unclosed == []


def test_every_figure_has_a_sentence_on_how_to_read_it(reported: Reported) -> None:
    """No section with data leaves the reader alone with it."""
    parts = re.split(r'<section id="(\w+)">', reported.page.html)
    explained = {name for name, body in zip(parts[1::2], parts[2::2], strict=True) if 'class="how"' in body}
    # The plain dataset has no overviews and no held-out ground; tests/pipeline/report/test_diagnostics.py has both.
    assert set(SECTIONS) - explained == {"glossary", "information", "heldout"}


def test_headline(reported: Reported) -> None:
    """The top names region, years, chips written of asked, ground, strata, clear share and bytes."""
    top = reported.page.sections["top"]
    area = sum(
        np.unique(reported.fake.frame["lon"].to_numpy() * 1000 + reported.fake.frame["lat"].to_numpy()).size * [95]
    )
    stored = sum(file.stat().st_size for file in (reported.fake.root / "store.zarr").rglob("*") if file.is_file())
    for said in ("bay, 2022", "38 chips written", "40 asked for", f"{area:,} km²", words.size(stored)):
        assert said in _swapped(top), said
    assert "Complete and verified" in top


def test_effective_strata_come_from_the_written_chips(reported: Reported) -> None:
    """Effective strata are exp of the entropy of written chips over strata, failures left out."""
    samples = pq.read_table(reported.fake.root / "samples.parquet")
    written = np.array(samples["state"].to_pylist()) == "written"
    _, counts = np.unique(samples["stratum"].to_numpy()[written], return_counts=True)
    p = counts / counts.sum()
    expected = np.exp(-(p * np.log(p)).sum())
    assert f"{expected:.1f} effective strata of" in reported.page.sections["strata"]


def test_funnel_counts(reported: Reported) -> None:
    """The funnel counts every step from the tables and names every reason with its number."""
    assert reported.fake.response is not None
    states = Counter(reported.fake.response.table["state"].to_pylist())
    words = reported.page.sections["funnel"]
    steps = {
        "framed": reported.fake.frame.num_rows,
        "planned": int(np.count_nonzero(reported.fake.plan["first_look"].to_numpy())),
        "looked at": reported.fake.response.table.num_rows,
        "observable": states["drawn"] + states["observable"],
        "drawn": states["drawn"],
        "written": states["drawn"] - len(FAILED),
    }
    for name, count in steps.items():
        assert f"{count:,} {name} " in words, name
    for state, meaning in STATE_WORDS.items():
        assert (f"{states[state]} {meaning}" in words) == (states[state] > 0), state
    assert f"{len(FAILED)} their pixels could not be read" in words


def test_strata_table_agrees_with_the_tables(reported: Reported) -> None:
    """Every stratum's line holds its counts, and the last line their sums."""
    assert reported.fake.response is not None
    rows = reported.page.tables["strata"][-1]
    head, *lines, total = rows
    assert head[2:10] == ["frame", "master", "looked at", "observable", "drawn", "written", "failed", "π₁"]
    strata, frame_units = np.unique(reported.fake.frame["stratum"].to_numpy(), return_counts=True)
    assert len(lines) == strata.size
    looked = reported.fake.response.table["stratum"].to_numpy()
    assert sorted(int(line[2]) for line in lines) == sorted(frame_units.tolist())
    assert [line[3] for line in lines] == [line[2] for line in lines]  # small strata are ranked whole
    assert sorted(int(line[4]) for line in lines) == sorted(int((looked == h).sum()) for h in strata)
    for column in range(2, 9):
        assert sum(int(line[column].replace(",", "")) for line in lines) == int(total[column].replace(",", ""))


def test_toll_of_clouds(reported: Reported) -> None:
    """The toll shows, per kind of ground and season, which share of the looked-at units was observable."""
    assert reported.fake.response is not None
    table = reported.fake.response.table
    cells = [cell for row in reported.page.tables["clouds"][0][1:] for cell in row[1:] if "%" in cell]
    strata = np.unique(table["stratum"].to_numpy())
    assert len(cells) == strata.size
    looked = [int(cell.split("%")[1].replace(",", "")) for cell in cells]
    assert sum(looked) == table.num_rows


def test_calendar_counts_every_date_once(reported: Reported) -> None:
    """The calendar's sums are the dates of the written chips by sensor."""
    samples = pq.read_table(reported.fake.root / "samples.parquet").to_pylist()
    sensors = Counter(granule[4:7] for row in samples if row["state"] == "written" for granule in row["granules"])
    rows = reported.page.tables["dates"][0][1:]
    found = {row[1][-4:-1]: int(row[-1]) for row in rows}
    assert found == dict(sensors)
    assert all(sum(int(cell or 0) for cell in row[2:-1]) == int(row[-1]) for row in rows)


def test_contact_sheet_shows_written_chips(reported: Reported) -> None:
    """Every written chip of a small dataset is shown at all its dates with its mask; tombstones are not."""
    pictures = [a for tag, a in reported.page.tags if tag == "img" and a.get("alt", "").startswith("Chip ")]
    shown = {int(a["alt"].split()[1]) for a in pictures}
    assert shown == set(range(40)) - set(FAILED)
    assert len(pictures) == 38 * 3
    assert any(a.get("class") == "mask" for tag, a in reported.page.tags if tag == "img")


def test_the_network_is_said_by_stage_and_cause(reported: Reported) -> None:
    """Requests, repeats with their causes, the most frequent first, and what was given up; the limit in words."""
    rows = {row[0]: row[1:] for row in reported.page.tables["reading"][1][1:]}
    assert rows["pixels"][0] == "806"
    assert rows["pixels"][2] == "12 × 429 too many requests, 3 × 5xx server error2 × waited for the rate limit"
    assert rows["pixels"][3] == "1 × no such file"
    assert rows["screening"][2:] == ["1 × timeout", "none"]
    assert "at most 200 requests per second to one host" in reported.page.sections["reading"]


def test_reading_and_bands(reported: Reported) -> None:
    """Requests and bytes are given in all and per chip, waste is what was not needed; bands are those of the pixels."""
    rows = {row[0]: row[1:] for row in reported.page.tables["reading"][0][1:]}
    assert rows["requests for blocks"] == ["720", "18.9"]
    assert rows["bytes wasted"] == ["8.4 MB", "221.1 kB"]
    assert "1.10 bytes were requested for each byte needed" in reported.page.sections["reading"]
    blue = valid_counts(training_units(pq.read_table(reported.fake.root / "samples.parquet")))[0]
    mean, std = f"{blue.mean() / 1e4:.4f}", f"{blue.std() / 1e4:.4f}"
    assert reported.page.tables["bands"][0][1] == ["blue", mean, std, "0 %", f"{blue.size:,}"]


def test_failures_are_named_with_their_cause(reported: Reported) -> None:
    """Tombstones and refused granules stand in the page with unit or id and cause."""
    samples = pq.read_table(reported.fake.root / "samples.parquet")
    rows = reported.page.tables["reading"][2][1:]
    assert rows == [[str(samples["unit"][i].as_py()), CAUSE] for i in FAILED]
    assert "the file ends after 4,096 bytes" in reported.page.sections["screening"]


def test_a_sparse_granule_with_a_clear_catalogue_figure_stands_out(reported: Reported) -> None:
    """A granule that covers 3 % of its tile and claims a clear sky is listed first."""
    rows = reported.page.tables["screening"][-1][1:]
    assert rows[0][1:3] == ["0 %", "62 %"]
    assert "covers only 3 % of its tile" in rows[0][3]


def test_wording(reported: Reported) -> None:
    """Probabilities are worded exactly, and words that promise more than holds are not used."""
    text = " ".join(reported.page.sections.values())
    assert "is not the marginal inclusion probability" in text
    assert "Weighted totals describe the observable population, unbiased before raking and trimming" in text
    for promise in (
        "representative",
        "unbiased training",
        "corrects for clouds",
        "no leakage",
        "optimal",
        "effective training",
    ):
        assert promise not in text.lower(), promise
    assert all(term in reported.page.sections["glossary"] for term, _ in GLOSSARY)


def test_a_plan_that_gives_a_stratum_nothing_does_not_claim_a_chance_for_it(reported: Reported) -> None:
    """With fewer samples than strata, the first claim names the units that had no chance."""
    chances = reported.fake.plan.group_by("stratum").aggregate([("pi1", "max")])["pi1_max"].to_numpy()
    assert (chances == 0).any()
    assert "that the plan gave no sample" in reported.page.sections["probabilities"]


def test_nothing_is_loaded_from_outside(reported: Reported) -> None:
    """The page needs no network: no script, every source is embedded, and the policy forbids the rest."""
    assert all(value.startswith(("data:image/", "#")) for value in reported.page.loads)
    assert not [tag for tag, _ in reported.page.tags if tag in {"script", "link", "iframe", "object"}]
    assert "url(" not in reported.page.html
    assert "@import" not in reported.page.html
    policy = [a["content"] for tag, a in reported.page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert [text.startswith("default-src 'none'") for text in policy] == [True]


def test_accessible(reported: Reported) -> None:
    """Pictures have words, drawn figures a title, header cells a scope, and light and dark are both served."""
    assert all("alt" in a for tag, a in reported.page.tags if tag == "img")
    assert all(a.get("aria-label") for tag, a in reported.page.tags if tag == "svg" and "role" in a)
    assert all("scope" in a for tag, a in reported.page.tags if tag == "th")
    assert "prefers-color-scheme: dark" in reported.page.html
    assert "@media print" in reported.page.html


def test_the_same_folder_gives_the_same_page(reported: Reported) -> None:
    """Rendering is a function of the folder: no clock, no order of files, no random number."""
    before = reported.path.read_bytes()
    assert render_report(reported.fake.root).read_bytes() == before
    assert not list(reported.fake.root.glob(".report*"))


@pytest.mark.parametrize("until", STAGES)
def test_partial_folders_say_what_is_missing(tmp_path: Path, until: str) -> None:
    """After a dry run or an interrupted one the page shows what is there and says in a sentence what is not."""
    page = Page.of(render_report(make_dataset(tmp_path / "part", until=until).root))
    after = STAGES.index(until)
    expected = {
        "maps": 0,
        "strata": 0,
        "clouds": STAGES.index("response"),
        "dates": STAGES.index("response"),
        "probabilities": STAGES.index("response"),
        "spread": STAGES.index("response"),
        "selftest": STAGES.index("response"),
        "tradeoff": STAGES.index("plan"),
        "information": len(STAGES),
        "heldout": len(STAGES),
        "chips": STAGES.index("store"),
        "bands": STAGES.index("samples"),
        "reading": STAGES.index("samples"),
        "checks": STAGES.index("samples"),
    }
    for name, stage in expected.items():
        body = re.split(rf'<section id="{name}">', page.html)[1].split("</section>")[0]
        assert ('class="absent"' in body) == (after < stage), name
    badge = {"frame": "Planned only", "plan": "Planned only", "response": "Unfinished", "store": "Unfinished"}
    assert badge.get(until, "Complete") in page.sections["top"]


def test_an_empty_folder_has_a_report(tmp_path: Path) -> None:
    """A folder with nothing in it gives a page of sentences, not an error."""
    page = Page.of(render_report(tmp_path))
    assert "this folder holds no plan yet" in page.sections["top"]
    assert page.html.count('class="absent"') >= 10


@pytest.mark.parametrize(
    "name", ["card.json", "response.parquet", "frame/strata.json", "samples.parquet", "scenes.parquet"]
)
def test_a_damaged_part_is_named(tmp_path: Path, name: str) -> None:
    """A file that cannot be read is said to be so, and the rest of the page is made."""
    root = make_dataset(tmp_path / "hurt").root
    (root / name).write_bytes(b"{not what it was")
    page = Page.of(render_report(root))
    assert f"{Path(name).name} is there but could not be read" in page.sections["asked"]
    assert "land cover" in page.sections["maps"]


def test_a_damaged_chip_is_said_and_the_others_are_shown(tmp_path: Path) -> None:
    """A chunk that does not decode costs its chip only."""
    root = make_dataset(tmp_path / "chip").root
    (root / "store.zarr" / "image" / "c.0.0.0.0.0").write_bytes(b"broken")
    page = Page.of(render_report(root))
    assert "Sample 0 could not be read" in page.sections["chips"]
    assert "37 of 38" in page.sections["chips"]


def test_a_card_of_unexpected_kinds_is_no_error(tmp_path: Path) -> None:
    """Sections of a wrong type are taken as absent."""
    root = make_dataset(tmp_path / "odd").root
    odd = dict.fromkeys(json.loads((root / "card.json").read_text()), 7) | {"read": {"requests": "NaN"}, "said": {}}
    (root / "card.json").write_text(json.dumps(odd))
    page = Page.of(render_report(root))
    assert "38 chips written" in _swapped(page.sections["top"])
    assert "Nothing was verified yet" in page.sections["checks"]


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    """Markup in region names, causes, tiles and sentences is shown, never run or loaded."""
    page = Page.of(render_report(make_dataset(tmp_path / "hostile", hostile=True).root))
    assert HOSTILE not in page.html
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert all(value.startswith(("data:image/", "#")) for value in page.loads)
    for section in ("asked", "reading", "screening"):
        assert '<script>alert("x")</script>' in page.sections[section], section


def test_southern_places_have_their_own_seasons(tmp_path: Path) -> None:
    """South of the equator latitudes are labelled S and the same calendar months belong to other seasons."""
    page = Page.of(render_report(make_dataset(tmp_path / "south", until="plan", south=True).root))
    assert "° S" in page.sections["maps"]
    assert "° N" not in page.sections["maps"]


def test_an_unfinished_store_shows_the_shards_that_are_there(tmp_path: Path) -> None:
    """After an interruption only chips of written shards are on the sheet."""
    root = make_dataset(tmp_path / "cut", until="store").root
    for chunk in (root / "store.zarr" / "image").glob("c.*"):
        if int(chunk.name.split(".")[1]) != 0:
            chunk.unlink()
    page = Page.of(render_report(root))
    pictures = {
        int(a["alt"].split()[1]) for tag, a in page.tags if tag == "img" and a.get("alt", "").startswith("Chip ")
    }
    assert pictures == set(range(8))


def test_report_is_replaced_at_once(reported: Reported, tmp_path: Path) -> None:
    """An older report is replaced by rename; nothing else in the folder changes."""
    root = tmp_path / "copy"
    shutil.copytree(reported.fake.root, root)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    (root / "report.html").write_text("old")
    render_report(root)
    after = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert after == before


def _swapped(top: str) -> str:
    """Headline with each value before its label, as it is shown (the label stands first in the source)."""
    return re.sub(r"(chips written) (\d+)", r"\2 \1", top)
