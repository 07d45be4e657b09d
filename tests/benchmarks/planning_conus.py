"""Planning at real scale: 9,391 HLSS30 granules of the conterminous United States, March to September 2022.

Real granule records with the outlines of the real tile grid, a global land-cover map and a weather climatology;
measures search, cells, covariates and, with --dry-run, the whole command with its default held-out split, which reads
no raster of the archive. `cpu s` counts all threads and processes of a step, and is what other load disturbs least.
Targets of the whole command: 60 s, 2 GB. `--maps DIR` draws what was planned.

    python tests/benchmarks/planning_conus.py --data ../shared/data [--dry-run] [--maps DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
from shapely.geometry import mapping

from geofm_pipeline.catalogs import find_scenes
from geofm_pipeline.cells import OwnedCells, owned_cells
from geofm_pipeline.covariates import land_cover_fractions, weather_monthly
from geofm_pipeline.hls.bands import BAND_FILES, FMASK_FILE
from geofm_pipeline.region import parse_region
from geofm_pipeline.years import parse_years

CONUS = "-125,24,-66,50"
YEARS = "2022"
_HREF = "https://data.lpdaac.earthdatacloud.nasa.gov/lp-prod-protected/HLSS30.020/{id}/{id}.{key}.tif"


def main() -> None:
    """Run the steps and print a table."""
    options = _options()
    land_cover = str(options.data / "maps" / "glcnmo2008_cover20_0.333deg.tif")
    weather = ",".join(str(options.data / "weather" / f"{name}.mon.ltm.nc") for name in ("air", "precip"))
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        catalog = write_catalog(options.data, Path(folder) / "items.json")
        region, years = parse_region(CONUS), parse_years(YEARS)
        scenes: pa.Table = _timed(rows, "search", lambda: find_scenes(catalog, region, years))
        tiles = sorted(set(scenes["tile"].to_pylist()))
        for size in (256, 64):
            owned: OwnedCells = _timed(
                rows, f"cells, {size} px", lambda size=size: owned_cells(tiles, region, chip_size=size)
            )
            covered = _timed(
                rows, f"land cover, {size} px", lambda owned=owned: land_cover_fractions(owned.table, land_cover)
            )
            whole = _timed(
                rows,
                f"weather, {size} px",
                lambda covered=covered: weather_monthly(covered.table, weather, years=years),
            )
            print(f"{size} px: {owned.report}; {covered.note}; {whole.note}")
            if options.maps and size == 256:
                _draw(options.maps, whole.table, scenes)
        if options.dry_run:
            rows.append(_dry_run(catalog, land_cover, weather, Path(folder) / "out"))
    _print(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).resolve().parents[3] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default, help="folder of the real data")
    parser.add_argument("--dry-run", action="store_true", help="run the whole command with --dry-run as well")
    parser.add_argument("--maps", type=Path, help="draw maps into this folder")
    parser.add_argument("--json", type=Path, help="write the table to this file")
    return parser.parse_args()


def write_catalog(data: Path, path: Path) -> str:
    """An ItemCollection of the real granules; footprints are the whole tiles of the real grid."""
    records = pd.read_csv(data / "granules" / "hls_s30_conus_2022_granules.csv.gz")
    grid = gpd.read_parquet(data / "s2-grid" / "sentinel-2-grid_LAND.parquet").set_index("tile")["geometry"]
    outlines = {tile: mapping(grid[tile]) for tile in records["tile"].unique()}
    keys = [*BAND_FILES["S30"].values(), FMASK_FILE]
    features = [
        {
            "type": "Feature",
            "id": record["id"],
            "geometry": outlines[record["tile"]],
            "properties": {"datetime": record["datetime"], "eo:cloud_cover": record["cloud_cover"]},
            "assets": {key: {"href": _HREF.replace("{id}", record["id"]).replace("{key}", key)} for key in keys},
        }
        for record in records.to_dict("records")
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return str(path)


def _timed(rows: list[dict[str, object]], step: str, work: Callable[[], Any]) -> Any:
    start, cpu = time.perf_counter(), time.process_time()
    result = work()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    table = result if isinstance(result, pa.Table) else result.table
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    rows.append(_row(step, table.num_rows, seconds, cpu, peak))
    return result


def _row(step: str, rows: int, seconds: float, cpu: float, peak: float) -> dict[str, object]:
    figures = {"seconds": round(seconds, 2), "cpu_s": round(cpu, 2), "peak_gb": round(peak, 2)}
    return {"step": step, "rows": rows, **figures}


def _dry_run(catalog: str, land_cover: str, weather: str, out: Path) -> dict[str, object]:
    # A launcher between us and the command reports the command's own peak, not ours.
    code = (
        "import resource, subprocess, sys\n"
        "rc = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(rc, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6)\n"
    )
    command = [
        sys.executable, "-c", "from geofm_pipeline.cli import main; main()", "--region", CONUS, "--years", YEARS,
        "--catalog", catalog, "--land-cover", land_cover, "--weather", weather, "--dry-run", "--out", str(out),
    ]  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *command], stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - start
    code_, cpu, peak = done.stdout.split()
    if code_ != "0":
        sys.exit(f"the dry run ended with exit code {code_}")
    return _row("whole command, --dry-run", 1, seconds, float(cpu), float(peak))


def _draw(folder: Path, cells: pa.Table, scenes: pa.Table) -> None:
    """Maps of what the planner sees: owned cells by tile, land cover, July temperature, July rain."""
    try:
        import matplotlib
    except ImportError:
        sys.exit("--maps draws with matplotlib, which the project does not depend on: pip install matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    frame = cells.to_pandas()
    classes = [name for name in frame.columns if name.startswith("lc_")]
    granules = scenes.to_pandas()["tile"].value_counts()
    layers = {
        "granules of the owner tile": (frame["tile"].map(granules), "viridis"),
        "largest land-cover class": (np.argmax(frame[classes].to_numpy(), axis=1), "tab20"),
        "temperature in July, °C": (frame["wx_t07"], "inferno"),
        "precipitation in July, mm": (frame["wx_p07"], "YlGnBu"),
        "tile (colours repeat)": (pd.factorize(frame["tile"])[0] * 7 % 20, "tab20"),
        "area, km²": (frame["area_km2"], "coolwarm"),
    }
    figure, axes = plt.subplots(3, 2, figsize=(16, 15), constrained_layout=True)
    for axis, (title, (values, colours)) in zip(axes.flat, layers.items(), strict=True):
        dots = axis.scatter(frame["lon"], frame["lat"], c=values, s=1.2, marker="s", cmap=colours, linewidths=0)
        axis.set(title=title, aspect=1.3)
        figure.colorbar(dots, ax=axis, shrink=0.7)
    figure.savefig(folder / "planning_conus.png", dpi=80)


def _print(rows: list[dict[str, object]]) -> None:
    print(f"{'step':<28}{'rows':>10}{'seconds':>10}{'cpu s':>10}{'peak GB':>10}")
    for row in rows:
        print(f"{row['step']:<28}{row['rows']:>10,}{row['seconds']:>10}{row['cpu_s']:>10}{row['peak_gb']:>10}")


if __name__ == "__main__":
    main()
