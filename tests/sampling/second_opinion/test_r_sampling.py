"""A second opinion: the R package `sampling` (Tillé & Matei) on the same probabilities.

Needs `Rscript` and the package (Debian: `r-cran-sampling`); without them these tests skip with the reason. R runs
in a process of its own and answers in text; only its documented functions are called. Pareto sampling is not compared:
`UPopips` of version 2.9 warns that it recycles its random numbers and draws 9 of 56 possible samples; test_draws.py
checks ours by quadrature.
"""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from geofm_sampling.draws import draw
from geofm_sampling.probabilities import capped_probabilities

pytestmark = pytest.mark.heavy

DRAWS = 10_000
PI = capped_probabilities([3, 1, 4, 1, 5, 9, 2, 6], 3)
IDS = np.arange(PI.size, dtype=np.uint64)


@pytest.fixture(scope="module")
def rscript() -> str:
    """Path of an Rscript that has the package."""
    path = shutil.which("Rscript")
    if path is None:
        pytest.skip("Rscript is not installed (Debian: apt install r-cran-sampling)")
    asked = subprocess.run([path, "-e", 'cat(requireNamespace("sampling"))'], capture_output=True, text=True)
    if not asked.stdout.endswith("TRUE"):
        pytest.skip("the R package 'sampling' is not installed (Debian: apt install r-cran-sampling)")
    return path


def run(rscript: str, code: str, **vectors: NDArray[np.float64]) -> list[str]:
    """Lines that R prints; `vectors` are defined before the code runs."""
    given = [f"{name} <- c({','.join(format(v, '.17g') for v in vector)})" for name, vector in vectors.items()]
    text = "\n".join(["suppressMessages(library(sampling)); set.seed(1)", *given, code])
    done = subprocess.run([rscript, "--vanilla", "-"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def theirs(rscript: str, one_draw: str) -> Counter[tuple[int, ...]]:
    """How often R drew each sample, positions from 0."""
    code = f'for (i in 1:{DRAWS}) cat(which({one_draw} == 1) - 1, "\\n")'
    return Counter(tuple(int(word) for word in line.split()) for line in run(rscript, code, pik=PI))


def ours(method: str) -> Counter[tuple[int, ...]]:
    draws = (draw(PI, method=method, seed=seed, purpose="test", ids=IDS) for seed in range(DRAWS))
    return Counter(tuple(sample.tolist()) for sample in draws)


def same_law(one: Counter[tuple[int, ...]], other: Counter[tuple[int, ...]]) -> bool:
    """χ² test of homogeneity of the frequencies of whole samples, rare ones pooled; α = 10⁻³."""
    table = np.array([[count[s] for s in sorted(set(one) | set(other))] for count in (one, other)])
    often = table.sum(axis=0) >= 10
    pooled = np.column_stack([table[:, often], table[:, ~often].sum(axis=1)])
    pooled = pooled[:, pooled.sum(axis=0) > 0]
    return bool(stats.chi2_contingency(pooled).pvalue > 1e-3)


def test_inclusion_probabilities_agree(rscript: str) -> None:
    """`inclusionprobabilities` gives our capped probabilities to 10⁻¹², from mild to strongly skewed sizes."""
    rng = np.random.default_rng(1)
    for spread, count, draws in ((0.3, 40, 5), (1.0, 200, 60), (2.5, 300, 150), (1.0, 30, 29)):
        size = rng.lognormal(0, spread, count)
        lines = run(rscript, f'cat(sprintf("%.17g", inclusionprobabilities(size, {draws})), sep = "\\n")', size=size)
        assert capped_probabilities(size, draws) == pytest.approx([float(line) for line in lines], abs=1e-12)


def test_ordered_pivotal_agrees(rscript: str) -> None:
    """Whole samples of `UPpivotal` and of our systematic form of it are equally frequent (χ², α = 10⁻³)."""
    assert same_law(ours("pivotal"), theirs(rscript, "UPpivotal(pik)"))


def test_systematic_agrees(rscript: str) -> None:
    """Whole samples of `UPsystematic` are equally frequent, and our pairs fit `UPsystematicpi2` (α = 10⁻³ each)."""
    mine = ours("systematic")
    assert same_law(mine, theirs(rscript, "UPsystematic(pik)"))
    lines = run(rscript, 'cat(sprintf("%.17g", UPsystematicpi2(pik)), sep = "\\n")', pik=PI)
    pairs = np.clip(np.array([float(line) for line in lines]).reshape(PI.size, PI.size), 0, 1)
    together = np.zeros_like(pairs)
    for sample, count in mine.items():
        together[np.ix_(sample, sample)] += count
    law = stats.binom(DRAWS, np.round(pairs, 12))
    assert np.all(2 * np.minimum(law.cdf(together), law.sf(together - 1)) > 1e-3 / pairs.size)
