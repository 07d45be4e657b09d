"""Pre-training on a GPU: samples per second, share of the peak, data wait, memory, parts of a step, and checks.

    python3 tests/benchmarks/pretrain_gpu.py --out FILE [--sizes 100M-T3 100M-T4 300M-T4 600M-T4] [--minutes 7]
    python3 tests/benchmarks/pretrain_gpu.py --table FILE

For a bare machine with one GPU, Python 3.12, torch ≥ 2.11 and a checkout of this repository, which is not installed.
Each cell appends a JSON line to FILE. A cell that FILE has of the same device is skipped and none is begun after
`--minutes`, so one command, repeated until it says that nothing is left, adds up. A cell that fails leaves a line with
its error; `--again` repeats those that failed otherwise than for lack of memory. Cells come in order of what they tell:

- `machine`: bfloat16 matrix products (best, and after seconds of them), the data sheet, the way to the device;
- `check`: what can only be seen on a GPU to be right (pretrain_gpu_checks.py);
- `step`: contenders (pretrain_gpu_contenders.py) in turns at each size's usual batch, compiled and eager;
- `feed`: what our step loses by the loader that feeds it, over the same step on a batch that stays on the device;
- `loader`: the loader alone;
- `step` at other batches until memory is short: ours, then the others by themselves;
- `kernels`: what the device did longest.

MFU counts what a step needs (step_flops: seen patches embedded, hidden ones predicted), for all contenders alike, over
the data sheet and over matrix products of 8192 measured just before. The store is synthetic (1,024 samples of 256 px,
2 GB), written to /dev/shm where there is room by the writer of pipeline/, without rasterio or Dask; `--store` takes
another. `--device cpu --sizes nano --modes eager` rehearses all of it in seconds.

Wheels to carry along, fetched where there is a way to packages, without those that the machine has (often only zarr,
numcodecs, google-crc32c and donfig are missing, 10 MB; `--no-deps`, since torch is there):

    python -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp --abi cp312
        --abi abi3 --abi none --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -c constraints.txt -d wheels
        zarr numcodecs google-crc32c donfig jaxtyping wadler-lindig pyarrow numpy scipy pillow pyyaml packaging
        typing_extensions terratorch==1.2.11 timm einops
    python3 -m pip install --no-index --no-deps --target SITE wheels/*.whl && export PYTHONPATH=SITE

scipy is for the store's writer; pillow for the check `resume` alone; terratorch, timm and einops, with the torchvision
of the machine's torch, for TerraTorch's model alone, without which the others run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / room) for room in ("sampling", "pipeline", "model", "tests/model/terratorch")]

import torch  # noqa: E402
from pretrain_gpu_checks import CHECKS  # noqa: E402
from pretrain_gpu_contenders import CONTENDERS, SIZES, Case, Stores  # noqa: E402
from pretrain_gpu_measures import (  # noqa: E402
    OUT_OF_MEMORY,
    Effort,
    Figures,
    data_wait,
    kernels,
    loader_rates,
    machine,
    product_rate,
    race,
    release,
    words,
)

from geofm_model.training.throughput import peak_flops  # noqa: E402

MODES = ("compiled", "eager")
KINDS = ("machine", "check", "step", "feed", "loader", "kernels")


@dataclass(frozen=True, kw_only=True)
class Work:
    """Cells that are measured together."""

    kind: str
    cells: Mapping[str, Figures]
    """What each line says of its cell beside its figures, by the cell's name."""
    do: Callable[[list[str]], Iterator[tuple[str, Figures]]]
    """Figures of those cells that are asked for."""


class Record:
    """The lines of a file, of one device."""

    def __init__(self, path: Path, device: str, *, again: bool) -> None:
        self._path, self._device = path, device
        lines = read(path) if path.exists() else []
        self.done = {str(line["cell"]): line for line in lines if line["device"] == device}
        if again:
            self.done = {name: line for name, line in self.done.items() if "error" not in line or spent(line)}

    def write(self, kind: str, cell: str, figures: Figures) -> None:
        """Append a line, at once and whole."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        about = {"kind": kind, "cell": cell, "device": self._device, "torch": torch.__version__, "time": now}
        self.done[cell] = {**about, **figures}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.done[cell]) + "\n")
            file.flush()
            os.fsync(file.fileno())
        print(f"{cell}: {summary(figures)}", flush=True)


def read(path: Path) -> list[dict[str, Any]]:
    """All lines, the last of each cell and device; a torn one of a killed process is left out."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        found[line["device"], line["cell"]] = line
    return list(found.values())


def spent(line: Mapping[str, object]) -> bool:
    """Whether memory was short."""
    return OUT_OF_MEMORY in str(line.get("error", ""))


_TOLD = ("ok", "samples_per_second", "mfu_matmul", "peak_gb", "data_wait", "busy_ms", "to_cuda", "matmul_tflops")


def summary(figures: Mapping[str, Any]) -> str:
    """A word on a line."""
    if "error" in figures:
        return str(figures["error"])
    told = {name: figures[name] for name in _TOLD if figures.get(name) is not None}
    return ", ".join(f"{name} {value:.4g}" for name, value in told.items()) or "done"


class Plan:
    """All work of a command, in order of what it tells."""

    def __init__(self, options: argparse.Namespace, stores: Stores, record: Record) -> None:
        self.options, self._stores, self._record = options, stores, record
        self.device = torch.device(options.device)
        self.effort = Effort(rounds=options.rounds, seconds=options.seconds)
        self.names = [name for name in CONTENDERS if name in options.contenders]
        if "terratorch" in self.names and (why := _missing()):
            print(f"TerraTorch's model is left out: {why}", flush=True)
            self.names.remove("terratorch")

    def __iter__(self) -> Iterator[Work]:
        sizes, modes = self.options.sizes, self.options.modes
        first = sizes[0]
        yield self._one("machine", "machine", lambda: machine(self.device, self.effort))
        for name, check in CHECKS.items():
            needs = {"waiting": self.device.type == "cuda", "compiled": "compiled" in modes}
            if needs.get(name, True):
                yield self._one("check", f"check {name}", partial(self._checked, check, first))
        for name in sizes:
            for mode in modes:
                yield self._race(name, mode, SIZES[name].usual, self.names)
            yield self._one("feed", f"feed {name} {modes[0]}", partial(self._fed, name, modes[0]))
        alone = f"loader T{SIZES[first].dates} {SIZES[first].usual}"
        yield self._one("loader", alone, lambda: loader_rates(self._case(first, "eager"), self.effort))
        others = [name for name in self.names if name != "ours"]
        for names in [part for part in (self.names[:1], others) if part]:
            for name in sizes:
                for mode in modes:
                    for batch in self.options.batches or SIZES[name].batches:
                        yield self._race(name, mode, batch, names)
        for name in sizes:
            yield self._one("kernels", f"kernels {name} {modes[0]}", partial(self._kernels, name, modes[0]))

    def _case(self, name: str, mode: str, batch: int | None = None) -> Case:
        size = SIZES[name]
        return Case(
            size=size,
            batch=batch or size.usual,
            compiled=mode == "compiled",
            device=self.device,
            store=self._stores.of(size),
        )

    def _checked(self, check: Callable[[Case], Figures], name: str) -> Figures:
        return check(self._case(name, "eager"))

    def _fed(self, name: str, mode: str) -> Figures:
        return {**self._of(name, mode), **data_wait(self._case(name, mode), self.effort)}

    def _kernels(self, name: str, mode: str) -> Figures:
        return {**self._of(name, mode), **kernels(self._case(name, mode))}

    def _of(self, name: str, mode: str) -> Figures:
        return {"size": name, "mode": mode, "batch": SIZES[name].usual}

    def _one(self, kind: str, cell: str, measure: Callable[[], Figures]) -> Work:
        return Work(kind=kind, cells={cell: {}}, do=lambda cells: iter([(cell, measure())]))

    def _race(self, name: str, mode: str, batch: int, names: Sequence[str]) -> Work:
        about = {"size": name, "mode": mode, "batch": batch, "precision": "bf16"}
        cells = {f"step {name} {mode} {batch} {who}": {**about, "model": who} for who in names}
        return Work(kind="step", cells=cells, do=partial(self._raced, cells))

    def _raced(self, about: Mapping[str, Figures], cells: list[str]) -> Iterator[tuple[str, Figures]]:
        """Steps of some contenders; those who had no memory for less are not tried."""
        runners = {}
        for cell in cells:
            if smaller := self._too_much(about[cell]):
                yield cell, {"error": f"{OUT_OF_MEMORY} at batch {smaller}"}
            else:
                runners[str(about[cell]["model"])] = cell
        if not runners:
            return
        fields: dict[str, Any] = dict(about[cells[0]])
        case, size = self._case(fields["size"], fields["mode"], fields["batch"]), SIZES[fields["size"]]
        rate, (peak, _) = product_rate(self.device), peak_flops(self.device, "bf16")
        for who, figures in race(list(runners), case, self.effort).items():
            if "error" not in figures:
                done = float(str(figures["samples_per_second"])) * size.flops
                figures = {**figures, "mfu_datasheet": done / peak, "mfu_matmul": done / rate}
            yield runners[who], {"gflop_per_sample": size.flops / 1e9, "matmul_tflops": rate / 1e12, **figures}

    def _too_much(self, cell: Figures) -> int | None:
        """A smaller batch for which memory was short."""
        same = {name: cell[name] for name in ("size", "mode", "model")}
        found = [
            line["batch"]
            for line in self._record.done.values()
            if line["kind"] == "step" and spent(line) and all(line[name] == value for name, value in same.items())
        ]
        return min((batch for batch in found if batch < cell["batch"]), default=None)


def _missing() -> str | None:
    """What TerraTorch's model wants and is not here."""
    absent = [
        name for name in ("terratorch", "timm", "einops", "torchvision") if importlib.util.find_spec(name) is None
    ]
    return f"no {', '.join(absent)}" if absent else None


def run(options: argparse.Namespace) -> None:
    """Measure what is not in the file yet, while there is time."""
    until = time.monotonic() + 60 * options.minutes
    cuda = options.device == "cuda"
    record = Record(options.out, torch.cuda.get_device_name() if cuda else "cpu", again=options.again)
    left = 0
    with Stores(options.store, options.samples) as stores:
        for work in Plan(options, stores, record):
            cells = [cell for cell in work.cells if cell not in record.done]
            if work.kind not in options.kinds or not cells:
                continue
            if time.monotonic() > until:
                left += len(cells)
                continue
            for cell, figures in attempted(work, cells):
                record.write(work.kind, cell, {**work.cells[cell], **figures})
            release(torch.device(options.device))
    print(f"{left} cells are left: repeat the command" if left else "nothing is left")


def attempted(work: Work, cells: list[str]) -> Iterator[tuple[str, Figures]]:
    """Figures or the error of each cell; a GPU that answers no more ends the program after its line."""
    waiting, failed = list(cells), ""
    try:
        for cell, figures in work.do(cells):
            waiting.remove(cell)
            yield cell, figures
    except Exception as error:
        failed = words(error)
    for cell in waiting:
        yield cell, {"error": failed or "no figures"}
    if "CUDA error" in failed or "AcceleratorError" in failed:
        raise SystemExit(f"the GPU answers no more ({failed}): repeat the command")


def table(path: Path) -> Iterator[str]:
    """Markdown of a file's figures, by device."""
    lines = read(path)
    for device in dict.fromkeys(line["device"] for line in lines):
        mine = [line for line in lines if line["device"] == device]
        yield f"### {device}, torch {mine[-1]['torch']}\n"
        for line in (line for line in mine if line["kind"] == "machine" and "error" not in line):
            yield (
                f"bf16 products {line['matmul_tflops']:.0f} TFLOP/s, {line['matmul_sustained_tflops']:.0f} after "
                f"seconds; {line['source']}: {line['datasheet_tflops']:.0f}; to the device "
                f"{line['host_to_device_gb_per_second']:.1f} GB/s; {line['cores']} cores\n"
            )
        yield from _steps([line for line in mine if line["kind"] == "step"])
        yield from _fed([line for line in mine if line["kind"] == "feed"])
        for line in mine:
            if line["kind"] in ("check", "loader") or (line["kind"] in ("machine", "feed") and "error" in line):
                said = {name: value for name, value in line.items() if name not in _ABOUT}
                yield f"- {line['cell']}: {json.dumps(said)}"
        for line in mine:
            if line["kind"] == "kernels" and "error" not in line:
                yield f"\n{line['cell']}, {line['busy_ms']:.1f} ms busy; ms, calls:"
                yield from (f"- {took:.2f}, {calls:.0f}: {name}" for name, took, calls in line["kernels"])


_ABOUT = ("kind", "cell", "device", "torch", "time")


def _steps(lines: list[dict[str, Any]]) -> Iterator[str]:
    """Contenders side by side, then where the time of ours goes."""
    order = {name: at for at, name in enumerate((*SIZES, *MODES, *CONTENDERS))}
    lines = sorted(
        lines, key=lambda line: (order[line["size"]], order[line["mode"]], line["batch"], order[line["model"]])
    )
    rates = {line["cell"]: line["samples_per_second"] for line in lines if "error" not in line}
    yield _row("size", "mode", "batch", "", "samples/s", "ms", "of data sheet", "of products", "peak GB", "ours is")
    yield _row(*["---"] * 10)
    for line in lines:
        where, who = (line["size"], line["mode"], str(line["batch"])), line["model"]
        if "error" in line:
            yield _row(*where, who, line["error"][:60], *[""] * 5)
            continue
        ours = rates.get(f"step {' '.join(where)} ours")
        times = f"{ours / line['samples_per_second']:.2f} ×" if ours and who != "ours" else ""
        memory = "" if line["peak_gb"] is None else f"{line['peak_gb']:.1f}"
        shares = (f"{100 * line[name]:.1f} %" for name in ("mfu_datasheet", "mfu_matmul"))
        yield _row(
            *where, who, f"{line['samples_per_second']:.0f}", f"{1000 * line['seconds']:.1f}", *shares, memory, times
        )
    yield ""
    for name, size in SIZES.items():
        found = [
            x for x in lines if (x["size"], x["mode"], x["model"]) == (name, "compiled", "ours") and "error" not in x
        ]
        if found and size.target:
            best = max(found, key=lambda line: float(line["mfu_matmul"]))
            share = 100 * best["mfu_matmul"]
            yield f"- {name}: {share:.1f} % of the products at batch {best['batch']} (target {100 * size.target:.0f} %)"
    parts = [line for line in lines if "phases" in line]
    if parts:
        yield "\n" + _row("ms of a step of ours", *parts[0]["phases"])
        yield _row(*["---"] * (1 + len(parts[0]["phases"])))
        for line in parts:
            shown = (f"{1000 * seconds:.1f}" for seconds in line["phases"].values())
            yield _row(f"{line['size']} {line['mode']} {line['batch']}", *shown)
        yield ""


def _fed(lines: list[dict[str, Any]]) -> Iterator[str]:
    """Data wait."""
    lines = [line for line in lines if "error" not in line]
    if lines:
        yield _row("size", "mode", "batch", "ms on one batch", "ms fed", "lost (target 2 %)", "samples/s", "threads")
        yield _row(*["---"] * 8)
    for line in lines:
        times = (f"{1000 * line[name]:.1f}" for name in ("seconds_fixed", "seconds_fed"))
        lost, rate = f"{100 * line['data_wait']:.1f} %", f"{line['samples_per_second']:.0f}"
        yield _row(line["size"], line["mode"], str(line["batch"]), *times, lost, rate, str(line["threads"]))
    yield ""


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where lines are appended")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the figures of a file instead")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=[name for name in SIZES if name != "nano"])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--batches", nargs="+", type=int, help="other than the usual one, ascending")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--minutes", type=float, default=7.0, help="after which no cell is begun")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn")
    parser.add_argument("--samples", type=int, default=1024, help="of a store; two thirds are read")
    parser.add_argument("--store", type=Path, help="a store or dataset folder instead of the synthetic one")
    parser.add_argument("--terratorch", type=Path, help="the folder that holds terratorch, or its prithvi_mae.py")
    parser.add_argument("--again", action="store_true", help="repeat cells that failed")
    options = parser.parse_args()
    if options.table:
        print("\n".join(table(options.table)))
        return
    if options.out is None:
        parser.error("give --out FILE or --table FILE")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU; --device cpu --sizes nano rehearses")
    if options.terratorch:
        place = options.terratorch.resolve()
        sys.path.append(str(place.parents[3] if place.is_file() else place))
    run(options)


if __name__ == "__main__":
    main()
