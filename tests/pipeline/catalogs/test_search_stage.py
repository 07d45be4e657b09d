"""The search stage freezes what was found, tells the card where it is from, and will not thaw it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from servers.monthly_archive import monthly_files

from geofm_pipeline.card import Card
from geofm_pipeline.errors import OutputConflictError
from geofm_pipeline.progress import Progress
from geofm_pipeline.region import parse_region
from geofm_pipeline.stages.inputs import Inputs
from geofm_pipeline.stages.search import search
from geofm_pipeline.workspace import WaveRecord, Workspace, write_waves
from geofm_pipeline.years import parse_years


@pytest.fixture
def run(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Search into a folder by name, with a user cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    inputs = Inputs(
        region=parse_region("-180,-90,180,90"),
        years=parse_years("2019,2022"),
        catalog="auto",
        land_cover=None,
        weather=None,
    )

    def start(name: str, *, access: Any = None, refresh: bool = False) -> tuple[Any, dict[str, object], str]:
        space = Workspace(root=tmp_path / name)
        space.root.mkdir(exist_ok=True)
        if not space.commits.exists():
            write_waves(space, [WaveRecord(wave=1, part=1, asked=0, design={}, digest="")])
        card, stream = Card(space.card), io.StringIO()
        table = search(space, inputs, access or world.access, refresh, Progress(stream), card)
        return table, card.section("search"), stream.getvalue() + str(card.section("said"))

    return start


def test_the_card_says_which_service_and_when(run: Any, world: Any, items: list[dict[str, Any]]) -> None:
    """Service, who was skipped and why, and the day of an answer that was kept from another run."""
    _, section, said = run("a", access=world.without("geoparquet", "cmr", "cmr-stac"))
    assert section["service"] == "planetary-computer"
    assert [skip["service"] for skip in section["tried"]] == ["geoparquet", "cmr", "cmr-stac"]
    assert section["cached"] is None
    assert "so 2019 will have none" in said
    world.bucket.files |= monthly_files(items, [(2018, 12), *((2019, month) for month in range(1, 13)), (2020, 1)])
    _, section, said = run("b")
    assert section["service"] == "geoparquet"
    assert section["cached"] is None
    asked = len(world.server.log)
    _, section, said = run("c")
    assert len(world.server.log) == asked
    assert str(section["cached"]).startswith("20")
    assert "--refresh searches anew" in said


def test_refresh_of_a_folder_that_has_its_granules_is_refused(run: Any) -> None:
    """A plan's granules do not change under it; before they are there, --refresh searches anew."""
    run("a", refresh=True)
    run("a")
    with pytest.raises(OutputConflictError, match="use another --out"):
        run("a", refresh=True)
