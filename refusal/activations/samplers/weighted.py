"""A stated share of toxic rows; on either side each row alike, or as often as its category's weight says.

OR-Bench has some 125 safe prompts for a toxic one. Without this, an autoencoder hardly sees the rows that the
study is about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from refusal import InputError
from refusal.activations.samplers import Stratum, normalised


def weights(
    strata: Sequence[Stratum],
    *,
    toxic_fraction: float = 0.5,
    category_weights: Mapping[str, float] | None = None,
) -> np.ndarray:
    """Return weights whose toxic strata sum to ``toxic_fraction``, [n_strata].

    Args:
        strata: The strata; one side alone gets everything where the other has no rows.
        toxic_fraction: Share of the split ``toxic``; ``safe`` and ``hard`` together get the rest.
        category_weights: How much oftener a category's rows come than those of a category of weight 1, the default.

    Raises:
        InputError: The fraction is not in 0..1, a weight is negative, or a category has no rows.
    """
    if not 0 <= toxic_fraction <= 1:
        raise InputError(f"sampler.toxic_fraction={toxic_fraction} is not between 0 and 1")
    by_category = _checked(category_weights or {}, strata)
    is_toxic = np.array([stratum.split == "toxic" for stratum in strata], dtype=bool)
    mass = np.array([stratum.rows * by_category.get(stratum.category, 1.0) for stratum in strata])
    for side, share in ((is_toxic, toxic_fraction), (~is_toxic, 1 - toxic_fraction)):
        if mass[side].any():
            mass[side] *= share / mass[side].sum()
    return normalised(strata, mass)


def _checked(category_weights: Mapping[str, float], strata: Sequence[Stratum]) -> Mapping[str, float]:
    known = sorted({stratum.category for stratum in strata})
    for category, weight in category_weights.items():
        if category not in known:
            raise InputError(
                f"sampler.category_weights: there are no rows of category '{category}' to train on; "
                f"there are of {', '.join(known)}"
            )
        if not 0 <= weight < float("inf"):
            raise InputError(f"sampler.category_weights: {category}={weight} is not zero or a positive number")
    return category_weights
