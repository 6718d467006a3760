"""The point with the least summed distance to all rows: half of the rows may lie anywhere, and it stays bounded.

Source: Weiszfeld, 1937; with Vardi and Zhang's care (2000, PNAS 97) for an iterate that hits a row.
"""

from __future__ import annotations

from torch import Tensor

ITERATIONS = 100
TOLERANCE = 1e-5  # of the rows' mean distance


def geometric_median(x: Tensor) -> Tensor:
    """Return the geometric median [d] of rows [n, d], to a relative 1e-5 or as near as 100 iterations come."""
    median = x.mean(0)
    for _ in range(ITERATIONS):
        distance = (x - median).norm(dim=1)
        size = distance.mean()
        if size == 0:
            break
        weights = 1 / distance.clamp(min=TOLERANCE * size)  # a row that is hit keeps a large weight, not all of it
        before, median = median, (weights / weights.sum()) @ x
        if (median - before).norm() <= TOLERANCE * size:
            break
    return median
