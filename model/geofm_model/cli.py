"""`geofm-train`: the command line. Thin over library functions; clock, environment and argv are read here only."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

PROGRAM = "geofm-train"
HELP = f"""usage: {PROGRAM} COMMAND ...

  pretrain      train a masked autoencoder on stores of geofm-sample, or go on with a run
  reconstruct   hide patches of samples and draw what a trained network makes of them
  curves        draw the losses of one or several runs
  export        write the weights of a run as safetensors, or as a Prithvi file

Each has --help. A run: {PROGRAM} pretrain --config mae_nano.yaml --data.store=STORE --out=RUN
"""


def main() -> None:
    """Entry point of the script `geofm-train`."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong input, 130 or 143 stopped by a signal."""
    name, rest = (argv[0], list(argv[1:])) if argv else ("--help", [])
    if name in ("--help", "-h"):
        print(HELP, end="")
        return 0
    try:
        code, text = _run(name, rest)
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    if text:
        print(text)
    return code


def _run(name: str, rest: list[str]) -> tuple[int, str]:
    from geofm_model import commands  # imports torch: --help should not wait for it

    known = {
        "pretrain": commands.pretrain,
        "reconstruct": commands.reconstruct,
        "curves": commands.curves,
        "export": commands.export,
    }
    if name not in known:
        print(f"{PROGRAM}: there is no command {name!r}: choose {', '.join(known)}", file=sys.stderr)
        return 2, ""
    try:
        return known[name](rest, os.environ)
    except commands.USER_ERRORS as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1 if isinstance(error, RuntimeError) else 2, ""
