"""95 % intervals by the percentile bootstrap over prompts within categories.

A statistic is a function of how often each prompt was drawn, so that all replicates are a few matrix products.
Source: Efron 1981 (percentile interval); Fieller 1954 (a ratio whose denominator may be 0 has no bounded interval).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

TAIL_PERCENT = 2.5
NORMAL_QUANTILE = 1.96

Statistic = Callable[[np.ndarray], np.ndarray]
"""From how often each prompt was drawn, [n, n_prompts], to the statistic's values, [n]; NaN where undefined."""


def draw_counts(categories_of_prompts: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each prompt is drawn when each category's are drawn anew, float [n, n_prompts].

    Args:
        categories_of_prompts: Index of each prompt's category, int [n_prompts].
        n: Number of replicates.
        rng: Draws them.
    """
    counts = np.zeros((n, len(categories_of_prompts)))
    for category in np.unique(categories_of_prompts):
        own = np.flatnonzero(categories_of_prompts == category)
        counts[:, own] = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=n)
    return counts


def percentile_interval(
    statistic: Statistic, categories_of_prompts: np.ndarray, n: int, rng: np.random.Generator
) -> tuple[float, float] | None:
    """Return the 2.5 and 97.5 percentiles of a statistic over n replicates of :func:`draw_counts`.

    Replicates where it is undefined (NaN) are left out; None if they are more than 2.5 %.
    """
    values = statistic(draw_counts(categories_of_prompts, n, rng))
    undefined = np.isnan(values)
    if undefined.mean() > TAIL_PERCENT / 100:
        return None
    low, high = np.percentile(values[~undefined], [TAIL_PERCENT, 100 - TAIL_PERCENT])
    return float(low), float(high)


def transfer_interval(
    drops: np.ndarray,
    categories_of_prompts: np.ndarray,
    n: int,
    rng: np.random.Generator,
    *,
    voting: Sequence[int] | None = None,
) -> tuple[float, float] | None:
    """Return the interval of the transfer T = mean off-diagonal drop / mean own drop.

    None with fewer than two categories, or if the mean own drop may be 0 (more than 2.5 % of its replicates are not
    positive): then the ratio may be anything.

    Args:
        drops: Fall of the refusal score of each prompt under each category's knock-out, [n_categories, n_prompts].
        categories_of_prompts: Category of each prompt, a row of ``drops``, int [n_prompts].
        n: Number of replicates.
        rng: Draws them.
        voting: Categories that count, all with at least one prompt; None: all.
    """
    chosen = np.arange(len(drops)) if voting is None else np.asarray(voting)
    if len(chosen) < 2:
        return None

    def transfer(counts: np.ndarray) -> np.ndarray:
        return drawn_transfer(drops, categories_of_prompts, chosen, counts)

    return percentile_interval(transfer, categories_of_prompts, n, rng)


def drawn_transfer(
    drops: np.ndarray, categories_of_prompts: np.ndarray, chosen: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Return the transfer of the chosen categories in each replicate, [n].

    NaN where none of a category's prompts was drawn, or the mean own drop is not positive.

    Args:
        drops: Fall of each prompt's score under each category's knock-out, [n_categories, n_prompts].
        categories_of_prompts: Category of each prompt, a row of ``drops``, int [n_prompts].
        chosen: Categories, int.
        counts: How often each prompt was drawn, [n, n_prompts].
    """
    own, off = np.zeros(len(counts)), np.zeros(len(counts))
    for category in chosen:
        mine = np.flatnonzero(categories_of_prompts == category)
        of_others = drops[np.ix_(chosen[chosen != category], mine)].mean(0)
        drawn = counts[:, mine].sum(1)
        drawn[drawn == 0] = np.nan
        own += counts[:, mine] @ drops[category, mine] / drawn
        off += counts[:, mine] @ of_others / drawn
    return np.divide(off, own, out=np.full(len(counts), np.nan), where=own > 0)


def combine_interval(low: float, high: float, index: float, residual_sd: float) -> tuple[float, float]:
    """Return an interval widened by an error that its own spread does not show, here that found by calibration.

    Each half width becomes the root of the sum of its square and of (1.96 ``residual_sd``) squared.
    """
    extra = NORMAL_QUANTILE * residual_sd
    below, above = max(0.0, index - low), max(0.0, high - index)
    return index - math.hypot(below, extra), index + math.hypot(above, extra)
