"""Weighted Jaccard: the importance that two circuits share, over what they have together.

Each vector is scaled to shares (sum of |.| is 1), so that a category which the model refuses more strongly is not
another circuit for that. A feature that promotes refusal and one that prevents it are not the same mechanism:
positive and negative parts are counted apart, so equal signs add min|.| to the numerator and max|.| to the
denominator, opposite signs 0 and |a| + |b|.

Source: Ruzicka 1958; the split by sign makes 1 - similarity a metric, as for sets.
"""

from __future__ import annotations

import numpy as np


def similarity(a: np.ndarray, b: np.ndarray, **_: object) -> float | None:
    """Return the weighted Jaccard index in [0, 1] of two importance vectors [n_features]; None if one is zero."""
    if not (a.any() and b.any()):
        return None
    a, b = _shares(a), _shares(b)
    shared = np.where(a * b > 0, np.minimum(np.abs(a), np.abs(b)), 0.0).sum()
    return min(1.0, float(shared / (2.0 - shared)))  # |A or B| = |A| + |B| - |A and B|, and both sizes are 1


def _shares(importances: np.ndarray) -> np.ndarray:
    scaled = importances / np.abs(importances).max()
    return scaled / np.abs(scaled).sum()
