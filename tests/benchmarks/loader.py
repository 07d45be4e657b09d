"""Samples per second from a store on disk into batches, beside other loaders over the same samples.

    python tests/benchmarks/loader.py --peer-python PY [--images FOLDER] [--samples 384] [--rounds 3] [--only NAME …]

Every contender is a fresh process on the whole machine and gives shuffled batches of 32 as torch tensors, image and
fmask, from warm files: one pass unmeasured, whose checksum of all pixels must be the same for all, then three measured.
*raw*: the store's own compressed samples in memory, CRC-32C and decode into the same few arrays, on as many threads as
cores: the limit. *ours* owned and borrowed. Peers (in an environment of their own) are torch's DataLoader with two
workers over tensorstore, zarr-python and zarrs on our store and over GeoTIFFs by rasterio, and litdata and MosaicML's
streaming over their own formats, uncompressed, which is the fastest they have. Rounds are interleaved, figures are
medians. Memory is the peak of this process and its children above what stood after the imports. `--size 224` makes
chips of Prithvi's size, `--http` reads our store from a server on loopback at 0 and 30 ms instead.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "pipeline")]

OURS = ("raw", "owned", "borrowed")
ON_STORE = ("tensorstore", "zarr_python", "zarrs")
OWN_FORMAT = ("litdata", "mosaicml", "geotiff")
PROFILES = ("local", "zstd")
REMOTE = ("http:0", "http:30")


def make_data(folder: Path, samples: int, size: int, images: Path | None) -> None:
    """Stores of both profiles, and their samples as GeoTIFFs and as plain arrays for the peers' writers."""
    import numpy as np
    import rasterio
    from store_writer import MemoryReader, image_chips, noise_chips

    from geofm_pipeline.store import StoreSpec
    from geofm_pipeline.store.synthetic import write_synthetic_store

    chips = image_chips(images, 64) if images else noise_chips(64)
    cut = [(chip.image[..., :size, :size], chip.fmask[..., :size, :size]) for chip in chips]
    small = [
        type(chip)(unit=chip.unit, image=np.ascontiguousarray(image), fmask=np.ascontiguousarray(fmask))
        for chip, (image, fmask) in zip(chips, cut, strict=True)
    ]
    for profile in PROFILES:
        spec = StoreSpec(n=samples, timesteps=4, height=size, width=size, seed=0, profile=profile)
        write_synthetic_store(folder / profile, spec, MemoryReader(small), threads=2)
    (folder / "tiff").mkdir()
    for at in range(samples):
        chip = small[at % len(small)]
        np.savez(folder / f"{at}.npz", image=chip.image, fmask=chip.fmask)
        bands = np.concatenate([chip.image.reshape(-1, size, size), chip.fmask.astype(np.int16)])
        shape = {"count": len(bands), "height": size, "width": size, "dtype": "int16"}
        codec = {"compress": "deflate", "predictor": 2, "tiled": True, "blockxsize": size, "blockysize": size}
        transform = rasterio.Affine(30, 0, 0, 0, -30, 0)
        path = folder / "tiff" / f"{at}.tif"
        with rasterio.open(path, "w", driver="GTiff", **shape, **codec, crs="EPSG:32632", transform=transform) as out:
            out.write(bands)


def one_run(python: Path, script: str, *words: str) -> dict[str, float]:
    """Figures that a contender prints as its last line."""
    done = subprocess.run([str(python), str(HERE / script), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{script} {' '.join(words)} failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def contenders(only: Sequence[str], http: bool) -> list[tuple[str, str]]:
    """(name, profile or '')."""
    if http:
        return [(name, "zstd") for name in REMOTE]
    every = [(name, profile) for profile in PROFILES for name in (*OURS, *ON_STORE)] + [(n, "") for n in OWN_FORMAT]
    return [pair for pair in every if not only or pair[0] in only]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, required=True)
    parser.add_argument("--images", type=Path, help="six-band rasters; else fractal noise")
    parser.add_argument("--samples", type=int, default=384, help="a multiple of 96; two thirds are read")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--http", action="store_true")
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="loader-") as name:
        folder = Path(name)
        make_data(folder, options.samples, options.size, options.images)
        if not options.http:
            one_run(options.peer_python, "loader_peers.py", "make", str(folder), str(options.samples))
        figures: dict[str, list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            for contender, profile in contenders(options.only, options.http):
                ours = contender in (*OURS, *REMOTE)
                python, script = (Path(sys.executable), "loader_ours.py") if ours else (
                    options.peer_python, "loader_peers.py")  # fmt: skip
                place = str(folder / profile) if profile else str(folder)
                found = one_run(python, script, contender, place, str(options.samples))
                figures.setdefault(f"{contender} {profile}".strip(), []).append(found)
    show(figures, options.samples)
    if options.json:
        options.json.write_text(json.dumps(figures))


def show(figures: dict[str, list[dict[str, float]]], samples: int) -> None:
    """The table, and ratios to the limit and to the peers in the same profile."""
    sums = {run["checksum"] for name, runs in figures.items() for run in runs if not name.startswith("raw")}
    assert len(sums) == 1, f"contenders gave different pixels: {sums}"
    read = len([index for index in range(samples) if index % 3])  # the training split
    rate = {name: median(read / run["seconds"] for run in runs) for name, runs in figures.items()}
    print(f"{'':22} samples/s  CPU ms  peak MB  requests/sample  of raw")
    for name, runs in figures.items():
        limit = rate.get(f"raw {name.rpartition(' ')[2]}", 0.0)
        of = f"{rate[name] / limit:6.2f}" if limit else ""
        cpu, peak = (median(run[key] for run in runs) for key in ("cpu_seconds", "peak_mb"))
        asked = median(run.get("requests", 0.0) for run in runs) / read
        print(f"{name:22} {rate[name]:9.0f} {1000 * cpu / read:7.2f} {peak:8.0f} {asked:16.3f}  {of}")
    if "http:0 zstd" in rate:
        print(f"30 ms over 0 ms: {rate['http:30 zstd'] / rate['http:0 zstd']:.2f} (target 0.75)")
    for profile, target in (("local", "3.5 / 3 / 12"), ("zstd", "2")):
        peers = {n: rate[k] for n in ON_STORE if (k := f"{n} {profile}") in rate} | {
            n: rate[n] for n in OWN_FORMAT if n in rate
        }
        if (ours := rate.get(f"owned {profile}")) and peers:
            ratios = ", ".join(f"{name} {ours / other:.2f}" for name, other in peers.items())
            print(f"{profile}: owned over {ratios} (targets {target})")


if __name__ == "__main__":
    main()
