"""A handful of made-up granules as items."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from servers.granule_items import GRANULES, make_item


@pytest.fixture
def items() -> list[dict[str, Any]]:
    """Items of GRANULES with relative hrefs."""
    return [make_item(name) for name in GRANULES]


@pytest.fixture
def item_of() -> Callable[..., dict[str, Any]]:
    """The function that makes one item of a granule id."""
    return make_item


@pytest.fixture
def write_collection(tmp_path: Path) -> Callable[[list[dict[str, Any]]], str]:
    """Write items as an ItemCollection and return its path."""

    def write(features: list[dict[str, Any]]) -> str:
        path = tmp_path / "items.json"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        return str(path)

    return write
