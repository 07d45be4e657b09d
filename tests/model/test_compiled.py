"""Blocks that torch compiles in place are the same network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.heavy
def test_compiled_blocks_are_the_same_network(tmp_path: Path) -> None:
    """Forward, loss and every gradient in float32, places included; blocks of one shape are compiled once."""
    program = Path(__file__).with_name("compiled_parity.py")
    fresh = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, str(program)], env=fresh, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
