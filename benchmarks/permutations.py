"""Time 10,000 permutations of the cosine, overall and for all 45 pairs of 10 categories with 1,000 prompts.

Against the straightforward way in the same run: scipy.stats.permutation_test on the same cosines with the same
statistic, at few permutations, scaled up. Machines are noisy: the ratio is the claim, CPU seconds come next.

    python benchmarks/permutations.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from scipy import sparse, stats

from refusal.comparison.permutation import above_chance, distinguishable, gram

N_CATEGORIES, N_EACH, N_FEATURES, ACTIVE_SHARE = 10, 100, 8192, 0.01
N_PERMUTATIONS, N_PEER, ROUNDS = 10_000, 200, 3
N_PAIRS = N_CATEGORIES * (N_CATEGORIES - 1) // 2


def timed(work: Callable[[], Any]) -> dict[str, float]:
    """Return wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


def peer(cosines: np.ndarray, category: np.ndarray, rng: np.random.Generator) -> None:
    """Test one pair of categories with scipy, at few permutations."""
    rows = np.flatnonzero(category < 2)
    block = cosines[np.ix_(rows, rows)]
    np.fill_diagonal(block, 0)

    def statistic(first: np.ndarray, second: np.ndarray) -> float:
        a, b = first.astype(int), second.astype(int)
        within = [block[np.ix_(own, own)].sum() / (len(own) * (len(own) - 1)) for own in (a, b)]
        return float(np.mean(within) - block[np.ix_(a, b)].mean())

    prompts = np.arange(len(rows), dtype=float)
    samples = (prompts[category[rows] == 0], prompts[category[rows] == 1])
    stats.permutation_test(samples, statistic, n_resamples=N_PEER, vectorized=False, rng=rng, alternative="greater")


def main() -> None:
    """Run the rounds, print the best of each contestant, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--json", type=Path, default=Path("permutations.json"), help="where to write (permutations.json)"
    )
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    shape = (N_CATEGORIES * N_EACH, N_FEATURES)
    importances = sparse.csr_array(sparse.random_array(shape, density=ACTIVE_SHARE, rng=rng, format="csr"))
    category = np.repeat(np.arange(N_CATEGORIES), N_EACH)
    cosines = gram(importances)
    means = np.stack([importances[category == c].mean(0) for c in range(N_CATEGORIES)])
    activity = np.bincount(importances.indices, minlength=N_FEATURES) / shape[0]
    contestants: dict[str, Callable[[], Any]] = {
        "gram": lambda: gram(importances),
        "distinguishable": lambda: distinguishable(cosines, category, N_CATEGORIES, rng=rng, n=N_PERMUTATIONS),
        "above_chance": lambda: above_chance(means, activity, rng=rng, n=N_PERMUTATIONS),
        "scipy, one pair, few permutations": lambda: peer(cosines, category, rng),
    }
    rounds = [{name: timed(work) for name, work in contestants.items()} for _ in range(ROUNDS)]
    best = {name: min((r[name] for r in rounds), key=lambda t: t["wall_seconds"]) for name in contestants}
    scaled = best["scipy, one pair, few permutations"]["cpu_seconds"] * N_PAIRS * N_PERMUTATIONS / N_PEER
    result = {
        "best": best,
        "scipy_all_pairs_cpu_seconds": scaled,
        "ratio": scaled / best["distinguishable"]["cpu_seconds"],
        "shape": {"prompts": shape[0], "features": shape[1], "pairs": N_PAIRS, "permutations": N_PERMUTATIONS},
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__},
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "as many as cores"),
    }
    for name, seconds in best.items():
        print(f"{name:36s} {seconds['wall_seconds']:7.2f} s wall {seconds['cpu_seconds']:7.2f} s CPU")
    print(f"scipy for all pairs, scaled up: {scaled:.0f} s CPU, {result['ratio']:.0f} times distinguishable's")
    arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
