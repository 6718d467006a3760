"""Cosine of signed importances: do the same features matter, as much, and in the same direction?"""

from __future__ import annotations

import numpy as np


def similarity(a: np.ndarray, b: np.ndarray, **_: object) -> float | None:
    """Return the cosine in [-1, 1] of two importance vectors [n_features]; None if one is zero."""
    if not (a.any() and b.any()):
        return None
    a, b = a / np.abs(a).max(), b / np.abs(b).max()  # so that squares of tiny importances do not vanish
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))
