"""How far the index moves because a category's direction was estimated from few prompts.

A bootstrap over the tested prompts keeps the directions as they are, so it cannot show their error. But each
category's direction was estimated twice, once from each half of the prompts: where the two disagree in how far they
lower the score, relative to how far everything lowers it for the same tested prompts, the direction is to blame.
"""

from __future__ import annotations

import numpy as np


def direction_sd(halves: np.ndarray) -> float:
    """Return the standard deviation of the index T that the two estimates of each direction account for.

    1. Prompts of one half may fall further than those of the other, under every knock-out alike; the ratio T does not
       notice. So from each tested category's two rows of drops, the best multiples of one common row are taken out.
    2. What is left moves T by z[half, A] for each knocked-out category A (first order: an off-diagonal drop counts
       1 / n(n - 1), an own drop -T / n, both over the mean own drop).
    3. T is the mean of the halves, and categories' errors are independent: var = sum_A ((z[0, A] - z[1, A]) / 2)^2.

    NaN with one category, without an own drop, or with gaps.

    Args:
        halves: Mean drops measured on each half with the other's directions, [2, n knocked out, n tested], nats.
    """
    n = halves.shape[-1]
    own = np.diagonal(halves, axis1=1, axis2=2).mean()
    if n < 2 or not own > 0 or not np.isfinite(halves).all():
        return float("nan")
    diagonal = np.eye(n, dtype=bool)
    transfer = halves[:, ~diagonal].mean() / own
    counts = np.where(diagonal, -transfer / n, 1 / (n * (n - 1))) / own
    u, s, v = np.linalg.svd(halves.transpose(2, 0, 1), full_matrices=False)  # of [2, n knocked out], by tested category
    rest = (u[:, :, 1:] * s[:, None, 1:]) @ v[:, 1:]  # [n tested, 2, n knocked out]
    z = np.einsum("bha,ab->ha", rest, counts)
    return float(np.sqrt((((z[0] - z[1]) / 2) ** 2).sum()))
