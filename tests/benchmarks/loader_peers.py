"""The same samples by other loaders; needs none of our packages.

    python tests/benchmarks/loader_peers.py make FOLDER SAMPLES
    python tests/benchmarks/loader_peers.py NAME FOLDER SAMPLES

`make` writes the samples (FOLDER/N.npz) in the formats of litdata and MosaicML's streaming, uncompressed. Every other
NAME gives shuffled batches of 32 by torch's DataLoader with two workers, as each library's documentation shows it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loader_memory import Peak, tree_cpu
from torch.utils.data import DataLoader, Dataset

BATCH, WORKERS, PASSES = 32, 2, 3


def rows_of(samples: int) -> list[int]:
    """Indices that are read: the training split of the synthetic stores."""
    return [index for index in range(samples) if index % 3]


class Indexed(Dataset[tuple[Any, Any]]):
    """Samples by index; `open` runs once in each worker."""

    def __init__(self, folder: Path, samples: int) -> None:
        self.folder, self.rows, self.opened = folder, rows_of(samples), False

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int) -> tuple[Any, Any]:
        if not self.opened:
            self.open()
            self.opened = True
        return self.read(self.rows[at])

    def open(self) -> None:
        """Open the arrays."""

    def read(self, index: int) -> tuple[Any, Any]:
        """Image [T, B, H, W] and fmask [T, H, W]."""
        raise NotImplementedError


class TensorStore(Indexed):
    """tensorstore's zarr3 driver."""

    def open(self) -> None:
        import tensorstore

        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": ""}}
        self.arrays = []
        for name in ("image", "fmask"):
            spec["kvstore"] = {"driver": "file", "path": str(self.folder / "store.zarr" / name)}
            self.arrays.append(tensorstore.open(spec, open=True, read=True).result())

    def read(self, index: int) -> tuple[Any, Any]:
        image, fmask = (array[index].read() for array in self.arrays)
        return image.result(), fmask.result()


class ZarrPython(Indexed):
    """zarr-python's own codec pipeline."""

    def open(self) -> None:
        import zarr

        group = zarr.open_group(str(self.folder / "store.zarr"), mode="r", use_consolidated=False)
        self.arrays = [group["image"], group["fmask"]]

    def read(self, index: int) -> tuple[Any, Any]:
        return self.arrays[0][index], self.arrays[1][index]


class Zarrs(ZarrPython):
    """zarr-python with the zarrs pipeline in Rust."""

    def open(self) -> None:
        import zarr
        import zarrs  # noqa: F401

        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
        super().open()


class GeoTiff(Indexed):
    """One deflated, tiled GeoTIFF per sample."""

    def read(self, index: int) -> tuple[Any, Any]:
        import rasterio

        with rasterio.open(self.folder / "tiff" / f"{index}.tif") as source:
            bands = source.read()
        size = bands.shape[-1]
        return bands[:24].reshape(4, 6, size, size), bands[24:].astype(np.uint8)


def _npz(folder: Path, index: int) -> dict[str, Any]:
    with np.load(folder / f"{index}.npz") as found:
        return {"image": found["image"], "fmask": found["fmask"]}


class _FromFile:
    """What litdata pickles to make a sample."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, index: int) -> dict[str, Any]:
        return {name: torch.from_numpy(array) for name, array in _npz(self.folder, index).items()}


def make(folder: Path, samples: int) -> None:
    """Both formats; MosaicML's shards of about 64 samples, litdata's chunks of 64 MB, its default."""
    import litdata
    from streaming import MDSWriter

    first = _npz(folder, 0)
    columns = {name: f"ndarray:{array.dtype}:{','.join(map(str, array.shape))}" for name, array in first.items()}
    limit = 64 * sum(array.nbytes for array in first.values())
    with MDSWriter(out=str(folder / "mds"), columns=columns, size_limit=limit) as out:
        for index in rows_of(samples):
            out.write(_npz(folder, index))
    litdata.optimize(
        fn=_FromFile(folder), inputs=rows_of(samples), output_dir=str(folder / "lit"), chunk_bytes="64MB", num_workers=1
    )


def batches_of(name: str, folder: Path, samples: int) -> Iterable[Any]:
    """Shuffled batches of an epoch, again each time it is iterated; workers stay."""
    options: dict[str, Any] = {"batch_size": BATCH, "num_workers": WORKERS, "persistent_workers": True}
    if name == "litdata":
        from litdata import StreamingDataLoader, StreamingDataset

        return StreamingDataLoader(StreamingDataset(str(folder / "lit"), shuffle=True, drop_last=False), **options)
    if name == "mosaicml":
        from streaming import StreamingDataset

        data = StreamingDataset(local=str(folder / "mds"), remote=None, shuffle=True, batch_size=BATCH)
        return DataLoader(data, **options)
    kind = {"tensorstore": TensorStore, "zarr_python": ZarrPython, "zarrs": Zarrs, "geotiff": GeoTiff}[name]
    if name in ("tensorstore", "zarrs"):  # their threads do not survive a fork
        options["multiprocessing_context"] = "forkserver"
    return DataLoader(kind(folder, samples), shuffle=True, **options)


def pixels(batch: Any) -> tuple[Any, Any]:
    """Image and fmask of a batch, whatever holds them."""
    return (batch["image"], batch["fmask"]) if isinstance(batch, dict) else tuple(batch)


def main() -> None:
    name, folder, samples = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if name == "make":
        make(folder, samples)
        print("{}")
        return
    checksum = 0
    with Peak() as peak:
        batches = batches_of(name, folder, samples)
        for image, fmask in map(pixels, batches):
            checksum += sum(int(part.numpy().sum(dtype=np.int64)) for part in (image, fmask))
        begun, cpu, seen = time.perf_counter(), tree_cpu(), 0
        for _ in range(PASSES):
            seen += sum(len(pixels(batch)[0]) for batch in batches)
        seconds, spent = time.perf_counter() - begun, tree_cpu() - cpu
    print(
        json.dumps(
            {"seconds": seconds / PASSES, "cpu_seconds": spent / PASSES, "peak_mb": peak.mb, "checksum": checksum}
        )
    )


if __name__ == "__main__":
    main()
