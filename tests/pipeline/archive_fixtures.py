"""A small simulated archive that tests of all rooms may share."""

from __future__ import annotations

import pytest

from geofm_pipeline.simulator import Archive, ArchiveSpec, Extent, build_archive

TINY = ArchiveSpec(
    tiles=("32TNS", "32TNR"),
    years=(2022,),
    seed=119,
    extents={
        "32TNS": Extent(row=3072, col=1280, height=320, width=512),
        "32TNR": Extent(row=0, col=1280, height=256, width=512),
    },
    per_year=9,
    choices=3,
)
"""Two tiles that overlap by 58 rows, two whole blocks each, nine passes of 2022."""


@pytest.fixture(scope="session")
def tiny_archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Two neighbouring tiles of two blocks each through one year; never write into it."""
    return build_archive(TINY, tmp_path_factory.mktemp("simulated") / "archive")
