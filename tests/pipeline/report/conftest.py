"""One finished dataset folder with its report, shared by the tests that only look."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from geofm_pipeline.report import render_report

from .fake_dataset import Fake, make_dataset
from .page import Page


@dataclass(frozen=True, kw_only=True)
class Reported:
    """A dataset, where its report is, and the report parsed."""

    fake: Fake
    path: Path
    page: Page


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """A finished dataset of 40 drawn units, two of them unreadable."""
    fake = make_dataset(tmp_path_factory.mktemp("report") / "bay")
    path = render_report(fake.root)
    return Reported(fake=fake, path=path, page=Page.of(path))
