"""How often do the two permutation tests reject where there is nothing to find? At the level of 5 %: 5 % of the time.

The nulls are true by construction, and no model is run: (a) prompts of one category with labels at random;
(b) importances whose identities within a band of equal activity were drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from refusal.comparison.permutation import PermutationTest, above_chance, activity_bands, distinguishable, gram

LEVEL = 0.05
Null = Callable[[np.random.Generator, int], PermutationTest]


def labels_at_random(
    rng: np.random.Generator, n: int, sizes: tuple[int, ...] = (40, 20, 30), n_features: int = 200
) -> PermutationTest:
    """Run test (a) with n permutations on prompts of one category, sparse, heavy-tailed, of two kinds."""
    n_prompts = sum(sizes)
    active = rng.random((n_prompts, n_features)) < rng.uniform(0.05, 0.6, n_features)
    rows = active * rng.lognormal(0, 1, (n_prompts, n_features)) * rng.choice([-1, 1], n_features)
    rows[: n_prompts // 3, :3] += 4
    category = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return distinguishable(gram(rows), category, len(sizes), rng=rng, n=n)


def identities_at_random(
    rng: np.random.Generator, n: int, n_categories: int = 10, n_features: int = 2000
) -> PermutationTest:
    """Run test (b) with n permutations on importances that grow with activity."""
    activity = rng.beta(0.5, 2, n_features).round(2)
    band = activity_bands(activity)
    vectors = activity * rng.lognormal(0, 1.5, (n_categories, n_features))
    for b in np.unique(band):
        own = np.flatnonzero(band == b)
        vectors[:, own] = rng.permuted(vectors[:, own], axis=1)
    return above_chance(vectors, activity, rng=rng, n=n)


NULLS: dict[str, Null] = {"distinguishable": labels_at_random, "above_chance": identities_at_random}


def false_positives(null: Null, seed: int, n_replicates: int, n_permutations: int = 199) -> float:
    """Return the share of replicates that the test rejects at 5 %.

    With n permutations the exact p is at most 0.05 in a whole number of cases only if (n + 1) is a multiple of 20.
    """
    rng = np.random.default_rng([seed, 11])
    p = [null(rng, n_permutations).p for _ in range(n_replicates)]
    return float(np.mean([value is not None and value <= LEVEL for value in p]))
