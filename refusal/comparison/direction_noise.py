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
       notice. So what each column (tested category) of a half owes to its own mean is taken out.
    2. What is left moves T by z[half, A] for each knocked-out category A (first order: an off-diagonal drop counts
       1 / n(n - 1), an own drop -T / n, both over the mean own drop).
    3. T is the mean of the halves, and categories' errors are independent: var = sum_A ((z[0, A] - z[1, A]) / 2)^2.

    Args:
        halves: Mean drops measured on each half with the other's directions, [2, n knocked out, n tested], nats.
    """
    n = halves.shape[-1]
    own = np.diagonal(halves, axis1=1, axis2=2).mean()
    if n < 2 or not own > 0:
        return float("nan")
    diagonal = np.eye(n, dtype=bool)
    together = halves.mean(0)
    transfer = together[~diagonal].mean() / own
    counts = np.where(diagonal, -transfer / n, 1 / (n * (n - 1))) / own
    columns = np.clip(halves.mean(1), 0, None)  # [2, n tested]
    share = np.divide(columns, columns.mean(0), out=np.ones_like(columns), where=columns.mean(0) > 0)
    z = ((halves - share[:, None] * together) * counts).sum(-1)  # [2, n knocked out]
    return float(np.sqrt((((z[0] - z[1]) / 2) ** 2).sum()))
