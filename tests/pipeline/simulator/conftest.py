"""Loads the shared archive fixture by path, because test folders are not packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_PATH = Path(__file__).resolve().parents[1] / "archive_fixtures.py"
_SPEC = importlib.util.spec_from_file_location("archive_fixtures", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
tiny_archive = _MODULE.tiny_archive
