"""Pictures of tests/benchmarks/designs.py; needs matplotlib, which the project does not depend on.

Outlines are Natural Earth's (public domain). Points are coloured by climate cluster, one factor of the strata; no map
is reproduced. Colours are those of Okabe & Ito (2008), told apart by all common kinds of colour vision.
"""

from __future__ import annotations

from pathlib import Path

try:
    import matplotlib as mpl
    from matplotlib import pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.colors import LogNorm
except ImportError as error:
    raise SystemExit(
        "pictures need matplotlib, which the project does not depend on: pip install matplotlib"
    ) from error

import geopandas as gpd
import numpy as np
from designs_methods import DESIGNS, FLOOR, Sample
from global_frame import Population
from PIL import Image

from geofm_sampling import allocate
from geofm_sampling.balance import voronoi_balance
from geofm_sampling.block_grid import BlockGrid
from geofm_sampling.blocks import Split, draw_split
from geofm_sampling.frontier import frontier
from geofm_sampling.strata import stratum_of_cells

Results = dict[str, dict[str, object]]
COLOURS = ("#0072b2", "#56b4e9", "#009e73", "#f0e442", "#e69f00", "#d55e00", "#cc79a7")
WORDS = {"globe": "globe (tiles)", "conus": "conterminous US (cells)"}
RANDOM, OURS = "simple random", "power ½ + floor"
_DPI = 100


def draw_pictures(folder: Path, data: Path, populations: dict[str, Population], results: Results, samples: int) -> None:
    """designs-frontier, designs-balance, designs-world and designs-split, as far as the frames are there."""
    folder.mkdir(parents=True, exist_ok=True)
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    outlines = gpd.read_file(data / "maps" / "world_countries_ne110.geojson")
    if all("powers" in found for found in results.values()):
        frontiers(folder / "designs-frontier.png", results, samples)
    balance(folder / "designs-balance.png", populations, samples)
    if "globe" in populations:
        world(folder / "designs-world.png", populations["globe"], outlines, samples)
    if "conus" in populations:
        split_map(folder / "designs-split.png", populations["conus"], outlines)


def frontiers(path: Path, results: Results, samples: int) -> None:
    """Effective strata, the smallest stratum and errors against the exponent q."""
    figure, axes = plt.subplots(1, 3, figsize=(11.5, 3.7))
    for (name, found), colour, mark in zip(results.items(), ("#0072b2", "#d55e00"), ("o", "s"), strict=False):
        sizes, points = np.array(found["sizes"]), found["powers"]
        line = frontier(sizes, samples, floor=FLOOR)
        bare = frontier(sizes, samples, floor=0)
        q = [point.power for point in line]
        axes[0].plot(q, [point.effective / sizes.size for point in line], color=colour, label=WORDS[name])
        axes[1].plot(q, [max(point.smallest, 0.5) for point in line], color=colour)
        axes[1].plot(q, [max(point.smallest, 0.5) for point in bare], color=colour, linestyle=":")
        measured = [point["power"] for point in points], [point["rmse"] for point in points]
        axes[2].errorbar(*measured, [2 * point["error"] for point in points], color=colour, marker=mark, capsize=3)
        axes[2].axhline(1.0, color="#777777", linewidth=0.8, linestyle="--")
        kept = next(point for point in line if point.power == 0.5)
        axes[0].plot(0.5, kept.effective / sizes.size, mark, color=colour)
    axes[0].set(title="Equal allocation fills strata evenly …", ylabel="effective strata, share of all strata")
    axes[1].set(title="… so that rare strata are seen; …", ylabel="samples of the smallest stratum", yscale="log")
    axes[1].set_ylim(bottom=0.3)
    axes[1].set_yticks([0.5, 1, 2, 5, 10, 20], ["none", "1", "2", "5", "10", "20"])
    axes[1].minorticks_off()
    axes[1].text(0.02, 0.03, "dotted: without the floor of 10", transform=axes[1].transAxes)
    axes[2].set(title="… averages over the area pay for it", ylabel="error of area means\n(simple random = 1)")
    axes[2].set_ylim(0, 1.1)
    axes[2].text(0.98, 0.89, "simple random", color="#777777", ha="right", va="top", transform=axes[2].transAxes)
    for axis in axes:
        axis.set_xlabel("exponent q: 0 equal, 1 proportional")
        axis.title.set_fontsize(9.5)
    axes[0].set_ylim(0, 1.05)
    axes[0].legend(frameon=False, loc="lower left", title="markers: q = ½, the default")
    _save(figure, path)


def balance(path: Path, populations: dict[str, Population], samples: int, redraws: int = 60) -> None:
    """Spatial balance of the pivotal draw beside simple random draws of the same numbers in the same strata."""
    figure, axes = plt.subplots(1, len(populations), figsize=(4.6 * len(populations), 3.2), squeeze=False)
    for axis, (name, population) in zip(axes[0], populations.items(), strict=True):
        ours, random = [], np.empty(0)
        for seed in range(1, redraws + 1):
            found = _balance(population, DESIGNS[OURS](population, samples, seed), seed, 1 if random.size else 100)
            if found is None:
                continue
            ours.append(found.observed)
            random = random if random.size else found.redraws
        bins = np.linspace(0, max(random.max(), max(ours)) * 1.08, 60)
        axis.hist(ours, bins, color="#0072b2")
        axis.hist(random, bins, color="#e69f00")
        for values, words, colour in ((ours, "pivotal along\nthe Hilbert curve", "#0072b2"),
                                      (random, "simple random\nin the same strata", "#a66f00")):  # fmt: skip
            axis.text(np.mean(values), axis.get_ylim()[1] * 1.02, words, ha="center", va="bottom", color=colour)
        axis.set_ylim(top=axis.get_ylim()[1])
        axis.set(xlabel="unevenness of Voronoi polygons (0: perfectly even)", ylabel="samples of each design")
        axis.set_title(f"{WORDS[name]}, n = {samples:,}", loc="left", fontsize=9.5, pad=34)
        figure.suptitle(
            "Within strata, pivotal samples lie twice as evenly as simple random ones", x=0.01, ha="left", fontsize=10
        )
        print(f"{name}: Voronoi unevenness {np.mean(ours):.3f} against {random.mean():.3f}")
    _save(figure, path)


def _balance(population: Population, sample: Sample, seed: int, redraws: int):  # type: ignore[no-untyped-def]
    chosen = np.zeros(population.unit.size, dtype=bool)
    chosen[sample.rows] = True
    lon, lat = (population.frame[name].to_numpy() for name in ("lon", "lat"))
    given = {"unit": population.unit, "group": population.stratum, "lon": lon, "lat": lat, "chosen": chosen}
    return voronoi_balance(**given, seed=seed, redraws=redraws, most=100_000)


def world(path: Path, population: Population, outlines: gpd.GeoDataFrame, samples: int) -> None:
    """Where a simple random and a power sample lie, with what probability tiles get in, and what strata get."""
    figure, axes = plt.subplots(2, 2, figsize=(12, 7.2))
    figure.subplots_adjust(left=0.01, right=0.985, top=0.965, bottom=0.075, hspace=0.32, wspace=0.03)
    drawn = {name: DESIGNS[name](population, samples, 1).rows for name in (RANDOM, OURS)}
    for axis, (name, rows) in zip(axes[0], drawn.items(), strict=True):
        _sampled(axis, population, rows)
        _outlined(axis, outlines, (-180, 180, -57, 84))
        found = np.bincount(population.stratum[rows], minlength=population.sizes.size)
        words = "Power ½ with floor, pivotal" if name == OURS else "Simple random"
        axis.set_title(f"{words}: {(found >= 10).sum()} of {found.size} strata have 10 units or more", loc="left")
    climates = range(population.strata.climate.unknown)
    handles = [
        plt.Line2D([], [], marker="o", linestyle="", color=COLOURS[k], label=_climate(population, k)) for k in climates
    ]
    figure.legend(handles=handles, loc="center", bbox_to_anchor=(0.5, 0.525), ncols=6, frameon=False,
                  title=f"climate of the {samples:,} sampled units: temperature and rain of the year")  # fmt: skip
    _chances(axes[1, 0], population, samples)
    _outlined(axes[1, 0], outlines, (-180, 180, -57, 84))
    box = axes[1, 1].get_position()
    axes[1, 1].set_position((box.x0 + 0.06, box.y0 + 0.02, box.width - 0.06, box.height - 0.05))
    _strata(axes[1, 1], population, drawn)
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)
    _fewer_colours(path)


def _strata(axis: Axes, population: Population, drawn: dict[str, np.ndarray]) -> None:
    """Samples against units of each stratum."""
    for (name, rows), colour, mark in zip(drawn.items(), ("#e69f00", "#0072b2"), ("o", "s"), strict=True):
        found = np.bincount(population.stratum[rows], minlength=population.sizes.size)
        axis.plot(population.sizes, np.maximum(found, 0.5), mark, color=colour, markersize=3.5, label=name, alpha=0.8)
    axis.set(xscale="log", yscale="log", xlabel="units (tile × season) of a stratum", ylabel="samples of the stratum")
    axis.set_yticks([0.5, 1, 2, 5, 10, 20, 50, 100, 200], ["none", "1", "2", "5", "10", "20", "50", "100", "200"])
    axis.minorticks_off()
    axis.set_title("Rare strata gain what the largest give up", loc="left")
    axis.legend(frameon=False, loc="lower right")


def _fewer_colours(path: Path) -> None:
    """Maps of points need few colours: a palette takes a third of the bytes."""
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(200, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def _sampled(axis: Axes, population: Population, rows: np.ndarray) -> None:
    climate = population.frame["climate"].to_numpy()[rows]
    lon, lat = (population.frame[name].to_numpy()[rows] for name in ("lon", "lat"))
    axis.scatter(lon, lat, s=2.2, c=[COLOURS[number] for number in climate], linewidths=0)


def _chances(axis: Axes, population: Population, samples: int) -> None:
    """π₁ of each tile under the power allocation, with its colour bar."""
    counts = allocate(population.sizes, samples, power=0.5, floor=FLOOR)
    chance = (counts / population.sizes)[population.stratum]
    _, tile = np.unique(population.unit >> np.uint64(10), return_inverse=True)
    columns = (chance, *(population.frame[name].to_numpy() for name in ("lon", "lat")))
    pi, lon, lat = (np.bincount(tile, weights=values) / np.bincount(tile) for values in columns)
    size = 2.0 / np.cos(np.radians(np.clip(lat, -75, 75)))
    dots = axis.scatter(lon, lat, c=pi, s=size, marker="s", cmap="viridis", norm=LogNorm(0.02, 0.4), linewidths=0)
    axis.set_title(f"Tiles of rare strata are up to {chance.max() / chance.min():.0f} times likelier", loc="left")
    bar = axis.inset_axes((0.05, 0.22, 0.2, 0.035))
    axis.figure.colorbar(dots, cax=bar, orientation="horizontal")
    bar.set_xticks([0.02, 0.1, 0.4], ["0.02", "0.1", "0.4 +"])
    bar.minorticks_off()
    bar.set_xlabel(f"π₁ of a tile and season\n(simple random: {samples / chance.size:.2f})", fontsize=8)


def _climate(population: Population, number: int) -> str:
    here = population.frame["climate"].to_numpy() == number
    rain, warm = (population.estimated[here, column].mean() for column in (6, 7))
    return f"{warm:.0f} °C, {rain:,.0f} mm"


def split_map(path: Path, population: Population, outlines: gpd.GeoDataFrame, share: float = 0.1) -> None:
    """Held-out blocks, buffers and training cells."""
    cells = population.ground.cells
    split = _split(population, share)
    figure, axis = plt.subplots(figsize=(10, 5.6))
    lon, lat = cells["lon"].to_numpy(), cells["lat"].to_numpy()
    for value, colour, words in (
        (0, "#b8c4cc", "training"),
        (-1, "#f0b400", "buffer: neither"),
        (1, "#0072b2", "held out"),
    ):
        here = split.split == value
        words = f"{words}, {here.mean():.1%} of the cells"
        axis.scatter(lon[here], lat[here], s=1.5, c=colour, marker="s", linewidths=0, label=words)
    held = split.blocks["block"].to_numpy()[split.blocks["heldout"].to_numpy(zero_copy_only=False)]
    for west, south, east, north in BlockGrid(block_km=100.0).bounds(held):
        axis.add_patch(
            plt.Rectangle((west, south), east - west, north - south, fill=False, color="#003c60", linewidth=0.7)
        )
    blocks = split.blocks.filter(split.blocks["cells"].to_numpy() > 0)
    drawn = int(blocks["heldout"].to_numpy(zero_copy_only=False).sum())
    axis.set_title(
        f"Whole blocks of 100 km are held out ({drawn} of {blocks.num_rows}); 5 km around them belong to neither side",
        loc="left", fontsize=10)  # fmt: skip
    _outlined(axis, outlines, (-125.5, -66, 24, 50.2))
    axis.text(
        0.99, 0.02, "blank: tiles without a granule in the list, open water", ha="right", transform=axis.transAxes
    )
    axis.legend(frameon=True, framealpha=1.0, edgecolor="white", loc="lower left", markerscale=6,
                title="chance of a block 0.1, more where it holds rare classes", alignment="left")  # fmt: skip
    _save(figure, path)
    _fewer_colours(path)


def _split(population: Population, share: float) -> Split:
    cells = population.ground.cells
    return draw_split(
        cells["lon"].to_numpy(),
        cells["lat"].to_numpy(),
        stratum_of_cells(cells, population.strata),
        share=share,
        block_km=100.0,
        buffer_km=5.0,
        chip_km=7.68,
        seed=1,
    )


def _outlined(axis: Axes, outlines: gpd.GeoDataFrame, box: tuple[float, float, float, float]) -> None:
    outlines.boundary.plot(ax=axis, color="#333333", linewidth=0.35)
    axis.set(xlim=box[:2], ylim=box[2:], xticks=[], yticks=[], xlabel="", ylabel="")
    axis.set_aspect(1.0 / np.cos(np.radians((box[2] + box[3]) / 2)) if box[1] < 0 else 1.15)
    for side in axis.spines.values():
        side.set_visible(False)


def _save(figure, path: Path) -> None:  # type: ignore[no-untyped-def]
    figure.tight_layout()
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)
