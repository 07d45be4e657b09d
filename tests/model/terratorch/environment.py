"""A folder of packages in which TerraTorch's PrithviMAE runs, and which no process of ours ever sees.

    python tests/model/terratorch/environment.py

installs it (100 MB, seconds) and prints the folder; a process has it by PYTHONPATH. torch, numpy and safetensors are
those of the environment that asks: both sides compute with the same kernels, and torch is not downloaded once more.
TerraTorch's other needs (3 GB) are left out, since :mod:`import_prithvi` imports its two files of Prithvi alone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
ALONE = ("terratorch==1.2.11", "timm==1.0.31", "einops==0.8.2", "torchvision==0.28.0")
"""Without what they ask for; this torchvision belongs to torch 2.13."""
WHOLE = ("huggingface_hub==0.36.2", "pillow")
"""With what they ask for, in the versions of constraints.txt."""
_UNREACHABLE = re.compile(
    r"connection broken by|failed to connect|connection (?:refused|reset|timed out)|timed out|name resolution"
    r"|could not resolve|ProxyError|SSLError",
    re.IGNORECASE,
)


class IndexUnreachableError(Exception):
    """pip cannot reach a package index from here."""


def terratorch_packages(root: Path = ROOT / "build") -> Path:
    """The folder, installed if it is not there yet; several processes may ask at once.

    Raises
    ------
    IndexUnreachableError
        When it is not there and there is no way to packages.
    RuntimeError
        When pip fails for another reason.
    """
    versions = f"{sys.version_info[:2]} {ALONE} {WHOLE}"
    folder = root / f"terratorch-{sha256(versions.encode()).hexdigest()[:8]}"
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    building = root / f".{folder.name}-{os.getpid()}"
    try:
        _pip("--no-deps", *ALONE, into=building)
        _pip("-c", str(ROOT / "constraints.txt"), *WHOLE, into=building)
        if not folder.is_dir():
            building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def beside(folder: Path, **changes: str) -> dict[str, str]:
    """The environment of a process that has the folder's packages before all others."""
    return {**os.environ, "PYTHONPATH": str(folder), **changes}


def _pip(*words: str, into: Path) -> None:
    # The tests' own processes go nowhere, by a proxy where nobody listens; pip takes what the machine has.
    environment = {name: value for name, value in os.environ.items() if value != "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--retries", "2"]
    done = subprocess.run(
        [*command, "--target", str(into), *words], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = f"{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
        raise (IndexUnreachableError if _UNREACHABLE.search(done.stderr) else RuntimeError)(said)


if __name__ == "__main__":
    sys.stdout.write(f"{terratorch_packages()}\n")
