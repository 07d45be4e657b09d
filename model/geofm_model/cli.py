"""`geofm-train`: the command line. Thin over library functions; clock, environment and argv are read here only."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from geofm_model.addresses import shown_in

PROGRAM = "geofm-train"
HELP = f"""usage: {PROGRAM} COMMAND ...

  pretrain      train a masked autoencoder on stores of geofm-sample, or go on with a run
  reconstruct   hide patches of samples and draw what a trained network makes of them
  curves        draw the losses of one or several runs
  export        write the weights of a run as safetensors, or as a Prithvi file

Each has --help. A run: {PROGRAM} pretrain --config mae_nano.yaml --data.store=STORE --out=RUN
"""
FIRST_S = 5.0
"""Seconds that the first process of another machine, and twice as many that other ones, leave to process 0 to say the
error that all have: whoever starts processes ends those that are left when it is gone (torchrun, srun, mpirun)."""


def main() -> None:
    """Entry point of the script `geofm-train`."""
    if sys.argv[1:2] == ["pretrain"]:  # here the process is ours
        from geofm_model.training.allocator import prepare_memory

        prepare_memory()
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong input, 130 or 143 stopped by a signal."""
    if not argv:
        print(HELP, end="", file=sys.stderr)
        return 2
    name, rest = argv[0], list(argv[1:])
    if name in ("--help", "-h"):
        print(HELP, end="")
        return 0
    try:
        code, text = _run(name, rest)
    except KeyboardInterrupt:
        if _rank() == 0:
            _say(f"{PROGRAM}: interrupted; the same command goes on from the last checkpoint")
        return 130
    except SystemExit as done:  # after --help, --print_config or no option at all
        return done.code if isinstance(done.code, int) else 0
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
        return _wrong(f"there is no command {name!r}: choose {', '.join(known)}"), ""
    try:
        return known[name](rest, os.environ)
    except commands.USER_ERRORS as error:
        code = 1 if isinstance(error, RuntimeError) else 2
        return _wrong(str(error), code, together=name == "pretrain"), ""


def _wrong(message: str, code: int = 2, *, together: bool = False) -> int:
    """Say what is wrong, once where processes that train together all find the same."""
    rank = _rank() if together else 0
    if rank == 0:
        _say(f"{PROGRAM}: {message}")
        return code
    time.sleep(FIRST_S if os.environ.get("LOCAL_RANK") == "0" else 2 * FIRST_S)
    _say(f"{PROGRAM}: process {rank}: {message}")
    return code


def _rank() -> int:
    """Number of this process among those that train together, as their starter says; 0 where it is alone."""
    rank, others = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1") != "1"
    return int(rank) if others and rank.isdecimal() else 0


def _say(line: str) -> None:
    print(shown_in(line), file=sys.stderr, flush=True)
