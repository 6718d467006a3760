"""Jaccard index of the circuits' nodes: what share of the nodes of either belongs to both?"""

from __future__ import annotations

import numpy as np

from refusal.comparison.similarity import nodes


def similarity(a: np.ndarray, b: np.ndarray, *, threshold: float = 0.1, **_: object) -> float | None:
    """Return |A and B| / |A or B| in [0, 1] for the nodes of two importance vectors [n_features]; None if one has none.

    A node is a feature, whatever its sign.
    """
    if not (a.any() and b.any()):
        return None
    in_a, in_b = nodes(a, threshold), nodes(b, threshold)
    return float((in_a & in_b).sum() / (in_a | in_b).sum())
