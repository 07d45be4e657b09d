"""The commands beside the main job: each parses its own words and calls one function."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from geofm_pipeline.addresses import shown_in
from geofm_pipeline.errors import InputError
from geofm_pipeline.options import PROGRAM, import_parser, parse_import_options
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

    from geofm_pipeline.importing.job import refuse_imported
    from geofm_pipeline.report import render_report
    from geofm_pipeline.workspace import existing_workspace

    existing_workspace(options.dir)
    refuse_imported(options.dir, "report")
    print_path = render_report(options.dir)
    progress.say(f"report: {print_path}")
    return 0


def estimate(argv: Sequence[str], progress: Progress) -> int:
    """`geofm-sample estimate DIR COLUMN`: a mean or total of the region with its interval, on stdout."""
    from geofm_pipeline.estimates import Question, as_text, estimate_dataset
    from geofm_pipeline.importing.job import refuse_imported

    parser = _Parser(
        prog=f"{PROGRAM} estimate",
        description="Estimate the mean or total of a column of samples.parquet, or of a covariate of the frame, over "
        "the region, with an interval that knows both phases of the draw.",
        epilog="docs/estimation.md has the formulas and what may be said.",
    )
    parser.add_argument("dir", type=Path, help="dataset folder")
    parser.add_argument("column", help="numeric column, e.g. entropy, or a covariate, e.g. lc_40 or wx_t07")
    parser.add_argument("--by", help="column whose values part the samples into domains, e.g. land_cover")
    parser.add_argument("--kind", choices=("mean", "total"), default="mean", help="default mean")
    parser.add_argument("--population", choices=("observable", "full"), default="observable", help="default observable")
    parser.add_argument("--split", type=int, choices=(0, 1), default=0, help="0 training (default), 1 held-out samples")
    parser.add_argument("--level", type=float, default=0.95, help="of the interval, default 0.95")
    options = parser.parse_args(argv)
    refuse_imported(options.dir, "estimate")
    question = Question(
        column=options.column,
        by=options.by,
        kind=options.kind,
        population=options.population,
        split=options.split,
        level=options.level,
    )
    sys.stdout.write(as_text(estimate_dataset(options.dir, question)) + "\n")
    what = "mean per unit (cell and season)" if options.kind == "mean" else "total over all units (cells and seasons)"
    progress.say(f"estimate: {options.column}, {what}")
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


def import_images(argv: Sequence[str], progress: Progress) -> int:
    """`geofm-sample import`: write a user's own images as a dataset; prints its folder on stdout."""
    if not argv:
        progress.say(import_parser().format_usage().rstrip())
    config = parse_import_options(argv)

    from geofm_pipeline.importing.job import run_import  # imports rasterio and pyarrow: --help should not wait for them

    command = shlex.join([PROGRAM, "import", *map(shown_in, argv)])
    out = run_import(config, progress=progress, command=command)
    sys.stdout.write(f"{out}\n")
    return 0


def login_check(argv: Sequence[str], progress: Progress) -> int:
    """`geofm-sample login-check`: log in, read sixteen kilobytes of one protected file, say what is wrong."""
    from geofm_pipeline.access.login_check import check_login
    from geofm_pipeline.access.notices import said_by
    from geofm_pipeline.access.services import load_services
    from geofm_pipeline.access.settings import Access

    parser = _Parser(
        prog=f"{PROGRAM} login-check",
        description="Check on this machine that NASA's protected files can be read: credentials, login, a byte range "
        "of one file over https and, in Amazon's region us-west-2, by S3. Says what is wrong, never a secret.",
        epilog="docs/access.md says how to get an account and what each message means.",
    )
    parser.add_argument("--href", help="the file to read instead of the built-in one")
    parser.add_argument("--services", type=Path, metavar="FILE", help="YAML file with addresses of services")
    parser.add_argument("--access", choices=("auto", "https", "s3"), default="auto", help="as in the runs to come")
    options = parser.parse_args(argv)
    access = Access(services=load_services(options.services), route=options.access)
    with said_by(progress.say):
        check_login(access, href=options.href, say=progress.say)
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
