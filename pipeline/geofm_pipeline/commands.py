"""The commands beside the main job: verify, report, simulate. Each parses its own words and calls one function."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from geofm_pipeline.errors import InputError, StoreDamagedError
from geofm_pipeline.options import PROGRAM
from geofm_pipeline.progress import Progress, human_bytes


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def verify(argv: Sequence[str], progress: Progress) -> int:
    """`geofm-sample verify DIR`: read every byte and compare it with what was written."""
    parser = _Parser(prog=f"{PROGRAM} verify", description="Check every byte of a dataset folder or a store.zarr.")
    parser.add_argument("dir", type=Path, help="dataset folder or store.zarr")
    parser.add_argument("--sizes", action="store_true", help="compare sizes only: finds missing and short shards fast")
    options = parser.parse_args(argv)

    from geofm_pipeline.dataset import verify_dataset

    report = verify_dataset(options.dir, deep=not options.sizes)
    if not report.ok:
        raise StoreDamagedError(str(report))
    progress.say(f"{options.dir}: {report!s} ({human_bytes(report.bytes)} read)")
    return 0


def report(argv: Sequence[str], progress: Progress) -> int:
    """`geofm-sample report DIR`: make report.html from the dataset folder."""
    parser = _Parser(prog=f"{PROGRAM} report", description="Make report.html again from what is in a dataset folder.")
    parser.add_argument("dir", type=Path, help="dataset folder")
    options = parser.parse_args(argv)

    from geofm_pipeline.report import render_report
    from geofm_pipeline.workspace import existing_workspace

    existing_workspace(options.dir)
    print_path = render_report(options.dir)
    progress.say(f"report: {print_path}")
    return 0
