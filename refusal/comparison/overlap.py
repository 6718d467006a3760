"""Do the categories' circuits use the same features? Similarities at every site, their ceilings, and two tests.

All of it follows from one sparse matrix of importances [n_prompts, n_features]; no model is run. Residual sites are
shown and marked as biased: the stream carries along what was detected earlier, and looks modular.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse

from refusal.circuits.importances import Importances
from refusal.comparison import permutation
from refusal.comparison.ceiling import corrected, noise_ceilings
from refusal.comparison.matching import match
from refusal.comparison.similarity import matrix, measures
from refusal.models.sites import Site

CEILING_SPLITS = 20


@dataclass(frozen=True)
class Features:
    """Importances of some sites' features on the prompts whose circuits are compared."""

    sites: Sequence[Site]
    values: sparse.csr_array
    """[n_prompts, n_features], the sites one after another."""
    site: np.ndarray
    """Index of each feature's site, int [n_features]."""
    directions: np.ndarray
    """What a unit of each feature adds, float32 [n_features, d_model]."""
    category: np.ndarray
    """Index of each prompt's category, int [n_prompts]."""
    n_categories: int

    def means(self) -> np.ndarray:
        """Return each category's mean importances, [n_categories, n_features]; zero without prompts."""
        share = sparse.csr_array(
            (np.ones(len(self.category)), (self.category, np.arange(len(self.category)))),
            shape=(self.n_categories, len(self.category)),
        )
        counts = np.bincount(self.category, minlength=self.n_categories)
        return sparse.csr_array(share @ self.values).toarray() / np.maximum(counts, 1)[:, None]


def join(
    importances: Mapping[Site, Importances],
    directions: Mapping[Site, np.ndarray],
    sites: Sequence[Site],
    rows: np.ndarray,
    category: np.ndarray,
    n_categories: int,
) -> Features:
    """Put the features of some sites side by side, for the prompts ``rows`` of these categories (int [n_rows])."""
    values = sparse.csr_array(sparse.hstack([importances[site].values[rows] for site in sites], format="csr"))
    sizes = [importances[site].d_sae for site in sites]
    stacked = np.concatenate([directions[site] for site in sites])
    return Features(sites, values, np.repeat(np.arange(len(sites)), sizes), stacked, category, n_categories)


def similarities(features: Features, *, threshold: float, rng: np.random.Generator) -> dict[str, Any]:
    """Return every measure's matrix, ceilings and corrected matrix, by the measure's name, as JSON holds them."""
    active = np.flatnonzero(np.diff(sparse.csc_array(features.values).indptr))  # features that matter on some prompt
    values = sparse.csr_array(features.values[:, active])
    options = {"threshold": threshold, "directions": features.directions[active]}
    means = features.means()[:, active]
    found = {}
    for name, measure in measures().items():
        raw = matrix(means, measure, **options)
        ceilings = noise_ceilings(
            values, features.category, features.n_categories, measure, rng=rng, splits=CEILING_SPLITS, **options
        )
        found[name] = {"matrix": raw, "ceiling": ceilings, "corrected": corrected(raw, ceilings)}
    return found


def tests(features: Features, *, n: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return both permutation tests, as JSON holds them: are categories distinguishable, is overlap above chance?"""
    cosines = permutation.gram(features.values)
    activity = _activity(features.values)
    return {
        "distinguishable": asdict(
            permutation.distinguishable(cosines, features.category, features.n_categories, rng=rng, n=n)
        ),
        "above_chance": asdict(permutation.above_chance(features.means(), activity, site=features.site, rng=rng, n=n)),
    }


def separate(sides: Mapping[str, Features], *, n: int, rng: np.random.Generator) -> dict[str, Any]:
    """Compare circuits of sides: cosines within each, and of safe and of hard circuits with toxic ones.

    The last two are ``cross`` and ``over_refusal``. A circuit without prompts or importance gives None. Each picture
    has a p value: of test (b) within a side, and for the last two of the overlap of both sides' mean circuits.
    """
    cosine = measures()["cosine"]
    found: dict[str, Any] = {}
    for side, features in sides.items():
        ceiling = noise_ceilings(
            features.values, features.category, features.n_categories, cosine, rng=rng, splits=CEILING_SPLITS
        )
        p = tests(features, n=n, rng=rng)["above_chance"]["p"]
        found[f"within_{side}"] = {"matrix": matrix(features.means(), cosine), "ceiling": ceiling, "p": p}
    for name, side in {"cross": "safe", "over_refusal": "hard"}.items():
        found[name] = _across(sides[side], sides["toxic"], n=n, rng=rng)
    return found


def _across(one: Features, other: Features, *, n: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return the cosine of each circuit of one side (row) with each of another, and p of their overlap.

    Where the sides have autoencoders of their own, their features are matched first; ``matched`` says how many of
    those that matter have a partner, and the mean cosine of the partners' directions.
    """
    matched = None
    if not np.array_equal(one.directions, other.directions):
        one, other, cosines = matched_features(one, other)
        matched = {"features": len(cosines), "cosine": float(cosines.mean()) if len(cosines) else None}
    cosine, means = measures()["cosine"], (one.means(), other.means())
    activity = _activity(sparse.csr_array(sparse.vstack([one.values, other.values])))
    test = permutation.above_chance(np.stack([m.mean(0) for m in means]), activity, site=one.site, rng=rng, n=n)
    return {"matrix": [[cosine(a, b) for b in means[1]] for a in means[0]], "p": test.p, "matched": matched}


def matched_features(one: Features, other: Features) -> tuple[Features, Features, np.ndarray]:
    """Put features of two dictionaries over each other by decoder direction, site by site.

    Returns:
        Both over the same features: the pairs first, then what only one of them has; and the pairs' cosines. Features
        that matter on no prompt are left out.
    """
    used = [np.flatnonzero(np.diff(sparse.csc_array(side.values).indptr)) for side in (one, other)]
    pairs, cosines = [np.empty((2, 0), dtype=int)], [np.empty(0)]
    for site in range(len(one.sites)):
        first, second = used[0][one.site[used[0]] == site], used[1][other.site[used[1]] == site]
        matching = match(one.directions[first], other.directions[second])
        pairs.append(np.stack([first[matching.first], second[matching.second]]))
        cosines.append(matching.cosine)
    paired = np.concatenate(pairs, axis=1)
    alone = [np.setdiff1d(own, partners) for own, partners in zip(used, paired, strict=True)]
    site = np.concatenate([one.site[paired[0]], one.site[alone[0]], other.site[alone[1]]])
    n_paired, n_first = paired.shape[1], paired.shape[1] + len(alone[0])
    places = [np.arange(n_first), np.append(np.arange(n_paired), np.arange(n_first, len(site)))]
    chosen = [np.append(partners, own) for partners, own in zip(paired, alone, strict=True)]
    first, second = (_placed(*one_side, site) for one_side in zip((one, other), chosen, places, strict=True))
    return first, second, np.concatenate(cosines)


def _placed(side: Features, chosen: np.ndarray, places: np.ndarray, site: np.ndarray) -> Features:
    """Return a side's chosen features in these places among features of the sites ``site``, [n_features]."""
    ones = np.ones(len(chosen), dtype=side.values.dtype)
    move = sparse.csr_array((ones, (chosen, places)), shape=(len(side.site), len(site)))
    directions = np.zeros((len(site), side.directions.shape[1]), side.directions.dtype)
    directions[places] = side.directions[chosen]
    return replace(side, values=sparse.csr_array(side.values @ move), site=site, directions=directions)


def _activity(importances: sparse.csr_array) -> np.ndarray:
    """Return the share of the prompts on which each feature has importance, [n_features]."""
    n_prompts = len(importances.indptr) - 1
    return np.diff(sparse.csc_array(importances).indptr) / max(1, n_prompts)
