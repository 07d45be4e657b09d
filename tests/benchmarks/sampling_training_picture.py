"""The picture of sampling_training.py; needs matplotlib, which the project does not."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from sampling_training_analysis import MEASURES, Analysis

ORDER = {"uniform-0.25": "uniform n/4", "ours-0.5": "ours n/2", "uniform-1": "uniform n", "ours-1": "ours n"}
PANELS = ("macro", "area", "rare")
REACH = 0.15
"""Differences of strata that the last panel shows; longer intervals are cut."""
COLOURS = {"uniform": "#777777", "ours": "#1b7837"}


def draw_picture(path: Path, found: Analysis) -> None:
    """Losses of the arms, a line per seed; and ours less uniform in each stratum, by its size."""
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, len(PANELS) + 1, figsize=(14, 4.6), width_ratios=[1, 1, 1, 1.5])
    for axis, key in zip(axes, PANELS, strict=False):
        _arms(axis, found, key)
    _strata(axes[-1], found)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _arms(axis: Axes, found: Analysis, key: str) -> None:
    names = [name for name in ORDER if name in found.measured]
    values = np.array([[row[key] for row in found.measured[name]] for name in names])
    axis.plot(range(len(names)), values, "-", color="#cccccc", linewidth=0.8, zorder=1)
    for at, name in enumerate(names):
        colour = COLOURS[name.split("-")[0]]
        axis.plot(np.full(values.shape[1], at), values[at], "o", color=colour, markersize=3.5, alpha=0.6)
        axis.plot([at - 0.25, at + 0.25], [values[at].mean()] * 2, "-", color=colour, linewidth=3)
    axis.set_xticks(range(len(names)), [ORDER[name].replace(" ", "\n") for name in names])
    axis.set_title(MEASURES[key].replace(": ", ":\n").replace(" of the rarer", "\nof the rarer"), fontsize=9)


def _strata(axis: Axes, found: Analysis) -> None:
    size, mean, low, high = (
        np.array([row[key] for row in found.strata], float) for key in ("pool", "mean", "low", "high")
    )
    taken = np.array([float(row["in ours"]) / max(float(row["in uniform"]), 0.1) for row in found.strata])
    axis.axhline(0, color="#999999", linewidth=0.8)
    axis.errorbar(size, mean, yerr=[mean - low, high - mean], fmt="none", ecolor="#bbbbbb", linewidth=1)
    dots = axis.scatter(
        size, mean, c=np.log2(taken), cmap="PRGn", vmin=-2, vmax=2, edgecolors="#333333", zorder=3, s=32
    )
    bar = axis.figure.colorbar(dots, ax=axis, ticks=[-2, -1, 0, 1, 2])
    bar.ax.set_yticklabels(["¼", "½", "1", "2", "4"])
    bar.set_label("chips in ours / in uniform")
    axis.set_ylim(-REACH, REACH)
    axis.set_xscale("log")
    axis.set_xlabel("units of the stratum in the pool")
    axis.set_title("ours n less uniform n: held-out loss\nof each stratum, 95 % interval over seeds", fontsize=9)
    axis.set_xticks([10, 20, 50, 100, 200, 500], ["10", "20", "50", "100", "200", "500"])
