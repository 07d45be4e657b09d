"""`geofm-sample`: the command line. Thin over library functions; clock, environment and argv are read here only."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from geofm_pipeline import commands
from geofm_pipeline.addresses import shown_in
from geofm_pipeline.errors import INTERRUPTED, GeofmError, InputError
from geofm_pipeline.interrupts import heard_again
from geofm_pipeline.options import PROGRAM, main_parser, parse_options
from geofm_pipeline.progress import Progress


def main() -> None:
    """Entry point of the script `geofm-sample`."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit code (docs/cli.md lists them)."""
    progress = Progress(sys.stderr)
    # A batch system ends jobs with SIGTERM: close the cluster and keep what is written, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with heard_again():
            return _dispatch(list(argv), progress)
    except GeofmError as error:
        progress.say(f"{PROGRAM}: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        from geofm_pipeline.access.source import stop_all

        stop_all()  # else the interpreter would wait for threads that wait for servers
        progress.say(f"{PROGRAM}: interrupted; what is written is kept, the same command continues")
        return INTERRUPTED


def _dispatch(argv: list[str], progress: Progress) -> int:
    """The main job needs no subcommand; the others are named by the first word."""
    if not argv:  # a script that has lost its words has not done what it was for
        progress.say(main_parser().format_help().rstrip())
        return InputError.exit_code
    name, rest = argv[0], argv[1:]
    match name:
        case "verify":
            return commands.verify(rest, progress)
        case "report":
            return commands.report(rest, progress)
        case "estimate":
            return commands.estimate(rest, progress)
        case "login-check":
            return commands.login_check(rest, progress)
        case "simulate":
            return commands.simulate(rest, progress)
        case "import":
            return commands.import_images(rest, progress)
    config = parse_options(argv)

    from geofm_pipeline.job import run_job  # imports Dask and xarray: --help should not wait for them

    result = run_job(config, progress=progress, command=shlex.join([PROGRAM, *map(shown_in, argv)]))
    print(Path(result).resolve())
    return 0
