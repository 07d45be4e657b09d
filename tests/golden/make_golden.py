"""Makes the golden store: `python tests/golden/make_golden.py` rewrites `store.zarr` and `expected.json` beside it.

Its pixels come from integer arithmetic alone, so they are the same on every machine and library version. It is made
again only when the contract changes, and then the schema version rises: that stores of yesterday stay readable is
what it is for. It has three shards of four rows, two splits, both sensors, a swath edge, values at the limits of
int16, one tombstone in a shard of readable chips and one shard of tombstones alone.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from hashlib import sha256
from pathlib import Path

import numpy as np

from geofm_pipeline.chips import Chip, ChipRequest
from geofm_pipeline.errors import BlockReadError
from geofm_pipeline.store import StoreSpec
from geofm_pipeline.store.synthetic import SyntheticReader, synthetic_requests, write_synthetic_store

SPEC = StoreSpec(
    n=10,
    timesteps=2,
    height=32,
    width=32,
    seed=7,
    shard_size=4,
    group_shards=2,
    provenance={"catalogue": "golden", "plan_digest": "0" * 64, "response_digest": "1" * 64},
)
TOMBSTONES = (5, 8, 9)


def golden_chip(request: ChipRequest) -> Chip:
    """A chip of integer patterns with a hash for texture; no floating point."""
    t, b, y, x = np.ogrid[: len(request.scenes), :6, : request.size, : request.size]
    cell = request.unit >> 10 & 63
    noise = ((x * 73856093) ^ (y * 19349663) ^ (t * 83492791) ^ (b * 2654435761) ^ (cell * 97)) % 61
    image = (300 + 250 * b + 9 * x + 5 * y - 40 * cell * (b == 5) + noise).astype(np.int16)
    fmask = np.broadcast_to(64 + 2 * ((x[:, 0] + y[:, 0]) % 11 == 0), (len(request.scenes), request.size, request.size))
    fmask = fmask.astype(np.uint8)
    image[0, :, 0, 0], image[0, :, 0, 1] = 32767, -32768
    if cell == 3:
        image[1, :, :, 20:], fmask[1, :, 20:] = -9999, 255
    return Chip(unit=request.unit, image=image, fmask=fmask)


def write_golden(out: Path) -> Path:
    """Write the golden store under `out`; returns its path."""
    fault = BlockReadError(granule="HLS.L30.T10SFE.2022100T183445.v2.0", band="B04", cause="404 Not Found")
    requests = synthetic_requests(SPEC)
    reader = SyntheticReader(golden_chip, faults={requests[row].chip.unit: fault for row in TOMBSTONES})
    write_synthetic_store(out, SPEC, reader)
    return out / "store.zarr"


def expected() -> dict[str, object]:
    """SHA-256 of the little-endian bytes of every sample's image and mask, None for tombstones."""
    chips = [golden_chip(request.chip) for request in synthetic_requests(SPEC)]
    return {
        "tombstones": list(TOMBSTONES),
        "units": [chip.unit for chip in chips],
        "image": [sha256(chip.image.astype("<i2").tobytes()).hexdigest() for chip in chips],
        "fmask": [sha256(chip.fmask.tobytes()).hexdigest() for chip in chips],
    }


def main() -> None:
    here = Path(__file__).parent
    shutil.rmtree(here / "store.zarr", ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(write_golden(Path(folder)), here / "store.zarr")
    (here / "expected.json").write_text(json.dumps(expected(), indent=1) + "\n")


if __name__ == "__main__":
    main()
