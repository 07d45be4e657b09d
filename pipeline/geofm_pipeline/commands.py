"""The commands beside the main job: verify, report, simulate. Each parses its own words and calls one function."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from geofm_pipeline.errors import InputError
from geofm_pipeline.options import PROGRAM
from geofm_pipeline.progress import Progress


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
    report.raise_if_damaged()
    progress.say(f"{options.dir}: {report}")
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


def simulate(argv: Sequence[str], progress: Progress) -> int:
    """`geofm-sample simulate OUT`: make an archive of simulated granules, land cover and weather."""
    from geofm_pipeline.simulator import FAULTS
    from geofm_pipeline.simulator import simulate as build
    from geofm_pipeline.store.files import disk_errors
    from geofm_pipeline.years import parse_years

    parser = _Parser(
        prog=f"{PROGRAM} simulate",
        description="Make an archive of simulated HLS granules with its catalogues, land cover and weather.",
        epilog="docs/simulator.md says what the archive holds and what each fault does.",
    )
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--tiles", required=True, help="MGRS tile ids, e.g. 32TNR,32TNS")
    parser.add_argument("--years", required=True, help="2022, 2019-2021 or 2019,2021")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another world (default 0)")
    parser.add_argument("--faults", default="", help=f"all, or names with commas: {', '.join(FAULTS)}")
    parser.add_argument(
        "--extent", help="ROW,COL,HEIGHT,WIDTH in pixels: the part of each tile that holds data (default whole tiles)"
    )
    parser.add_argument("--per-year", type=int, help="passes per year and tile (default every overpass)")
    parser.add_argument("--tile-offset", type=int, default=0, help="counts by which a tile's reflectance is shifted")
    parser.add_argument("--workers", type=int, default=1, help="processes (default 1)")
    options = parser.parse_args(argv)
    try:
        with disk_errors(options.out):
            archive = build(
                options.out,
                tiles=_words(options.tiles),
                years=parse_years(options.years).years,
                seed=options.seed,
                faults=_words(options.faults),
                extent=_extent(options.extent),
                per_year=options.per_year,
                tile_offset=options.tile_offset,
                workers=options.workers,
                progress=progress.say,
            )
    except ValueError as error:
        raise InputError(f"{error} (see {parser.prog} --help)") from error
    progress.say(f"archive: --catalog {archive.items} --land-cover {archive.land_cover} --weather {archive.weather}")
    return 0


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _extent(text: str | None) -> tuple[int, int, int, int] | None:
    if text is None:
        return None
    try:
        row, col, height, width = (int(word) for word in text.split(","))
    except ValueError:
        raise InputError(f"--extent {text!r} must be four whole numbers ROW,COL,HEIGHT,WIDTH in pixels") from None
    return row, col, height, width
