"""The house keeps its own rules: short functions, short files, a map that is true, nothing large tracked."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("sampling/geofm_sampling", "pipeline/geofm_pipeline", "model/geofm_model")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    """No file over 400 lines, no function over 60, and every module says what it is."""
    text = path.read_text()
    tree = ast.parse(text)
    long = [
        f"{node.name}: {length}"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > 60
    ]
    assert text.count("\n") <= 400
    assert long == []
    assert ast.get_docstring(tree)


def test_the_map_in_the_readme_names_every_file() -> None:
    """README's map and the tree agree, name by name."""
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"`(\w+\.py)`", readme))
    there = {path.name for path in MODULES if path.name != "__init__.py"}
    assert named == there


def test_links_in_the_documents_lead_somewhere() -> None:
    """Every relative link of README, CONTRIBUTING and docs points at a file of the project."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    broken = [
        f"{page.name}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert broken == []


def test_no_large_file_is_tracked() -> None:
    """Golden data is small; nothing over 1 MB enters the repository."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    assert [str(file) for file in files if file.is_file() and file.stat().st_size > 1_000_000] == []
