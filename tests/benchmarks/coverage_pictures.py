"""Pictures of tests/benchmarks/coverage.py; needs matplotlib, which the project does not."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from coverage_population import Array, Population
from matplotlib import pyplot as plt

from geofm_sampling.similarity import RADIUS

Results = dict[str, dict[str, dict[str, tuple[float, float]]]]
LINES = {
    "random": ("#777777", "random"),
    "equal per stratum": ("#b07aa1", "equal per stratum"),
    "k-means, nearest to centroid": ("#e15759", "k-means, nearest to centroid"),
    "top-K entropy per stratum": ("#f28e2b", "top-K entropy per stratum"),
    "strata, power ½": ("#76b7b2", "strata, power ½"),
    "strata, size entropy/√m": ("#4e79a7", "… with size entropy/√m"),
    "size 1/√m, drawn apart": ("#1b7837", "… with size 1/√m, drawn apart"),
}
PANELS = (
    ("mean distance", "distance to the nearest chosen patch\n(random = 1; lower is better)", True),
    ("macro distance", "the same, strata counted alike\n(random = 1; lower is better)", True),
    ("near-duplicates", "share of chosen patches that have\na look-alike among the chosen", False),
    ("rmse of band means", "error of estimated means\n(random = 1; lower is better)", False),
)
SHOWN = {
    "random": "random",
    "k-means, nearest to centroid": "k-means, nearest to centroid",
    "top-K entropy": "top-K entropy",
    "strata, size entropy/√m": "strata (cities), power ½, size entropy/√m",
    "size 1/√m, drawn apart": "strata (cities), power ½, size 1/√m, drawn apart",
}


def draw_pictures(folder: Path, population: Population, far: dict[str, Array], results: Results) -> None:
    """coverage-curves.png, coverage-radius.png and coverage-sheet.jpg."""
    folder.mkdir(parents=True, exist_ok=True)
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    curves(folder / "coverage-curves.png", results)
    radius(folder / "coverage-radius.png", far)
    sheet(folder / "coverage-sheet.jpg", population)


def curves(path: Path, results: Results) -> None:
    """The measures against n, a row per population."""
    names = [name for name in dict.fromkeys(key.split(", n=")[0] for key in results) if name != "land cover, 64 px"]
    figure, axes = plt.subplots(len(names), len(PANELS), figsize=(13.5, 3.1 * len(names)), squeeze=False)
    for line, name in zip(axes, names, strict=True):
        found = {int(key.split("n=")[1]): row for key, row in results.items() if key.startswith(f"{name}, n=")}
        for axis, (key, label, relative) in zip(line, PANELS, strict=True):
            for design, (colour, words) in LINES.items():
                base = {n: found[n]["random"][key][0] if relative else 1.0 for n in found}
                values = [found[n][design][key][0] / base[n] for n in found]
                axis.plot(list(found), values, "o-", color=colour, label=words, markersize=4)
            axis.set_xscale("log", base=2)
            axis.set_xticks(list(found), [str(n) for n in found])
            axis.set_xlabel("patches chosen")
            axis.set_title(label, fontsize=9, loc="left")
            axis.grid(axis="y", color="#dddddd", linewidth=0.6)
        line[-1].set_yscale("log", base=2)
        line[-1].set_yticks([0.25, 0.5, 1, 2, 4], ["¼", "½", "1", "2", "4"])
        line[0].set_ylabel({"cities, 64 px": "16 cities, 730 patches"}.get(name, "land cover, 984 patches"))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def radius(path: Path, far: dict[str, Array]) -> None:
    """How far apart the descriptors of related and unrelated patches lie."""
    figure, axis = plt.subplots(figsize=(7.2, 2.9))
    bins = np.geomspace(0.003, 1, 60)
    for (name, values), colour in zip(far.items(), ("#777777", "#f28e2b", "#4e79a7"), strict=True):
        share = np.histogram(values, bins)[0] / len(values)
        axis.step(bins[:-1], share, where="post", color=colour, label=name)
    axis.axvline(RADIUS, color="black", linewidth=0.9, linestyle="--")
    axis.text(RADIUS * 0.97, axis.get_ylim()[1] * 0.97, "radius 0.03 ", ha="right", va="top")
    axis.set_xscale("log")
    axis.set_xticks([0.01, 0.03, 0.1, 0.3, 1], ["0.01", "0.03", "0.1", "0.3", "1"])
    axis.minorticks_off()
    axis.set_xlabel("distance of two patches' descriptors, reflectance")
    axis.set_ylabel("share of pairs per bin")
    axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def sheet(path: Path, population: Population, n: int = 32) -> None:
    """The n patches that each design chooses, in order of city."""
    from coverage import DESIGNS

    figure, axes = plt.subplots(len(SHOWN), 1, figsize=(9, 6.9))
    for axis, name in zip(axes, SHOWN, strict=True):
        drawn = DESIGNS[name][0](population, n, 1)[0]
        drawn = drawn[np.argsort(population.order[drawn])]
        colour = np.sqrt(np.clip(population.pixels[drawn][:, [2, 1, 0]] / 3500, 0, 1)).transpose(0, 2, 3, 1)
        framed = np.pad(colour, ((0, 0), (0, 4), (0, 4), (0, 0)), constant_values=1)
        rows = framed.reshape(2, n // 2, *framed.shape[1:])
        axis.imshow(np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0))
        axis.set_title(SHOWN[name], loc="left", fontsize=9)
        axis.axis("off")
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=130, pil_kwargs={"quality": 80})
    plt.close(figure)
