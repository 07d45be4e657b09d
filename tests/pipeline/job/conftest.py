"""A small simulated archive and the options of a job on it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from geofm_pipeline.simulator import Archive, open_archive, simulate


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """One tile, one year, twelve passes over four blocks: 64 cells of 64 px."""
    out = tmp_path_factory.mktemp("archive") / "archive"
    return simulate(out, tiles=["32TNR"], years=[2022], seed=3, extent=(0, 1280, 512, 512), per_year=12)


@pytest.fixture
def own_archive(archive: Archive, tmp_path: Path) -> Archive:
    """A copy of the archive that a test may damage."""
    shutil.copytree(archive.root, tmp_path / "archive")
    return open_archive(tmp_path / "archive")


def job_words(archive: Archive, out: Path, *more: str) -> list[str]:
    """The command line of a small job inside this process: 64-px chips of two dates.

    `more` are option, value, option, value … that replace these; an empty value removes the option.
    """
    words = {
        "--region": "32TNR",
        "--years": "2022",
        "--catalog": str(archive.items),
        "--land-cover": str(archive.land_cover),
        "--weather": str(archive.weather),
        "--chip-size": "64",
        "--timesteps": "2",
        "--samples": "40",
        "--workers": "0",
        "--out": str(out),
    }
    words |= dict(zip(more[::2], more[1::2], strict=True))
    return [word for option, value in words.items() if value for word in (option, value)]
