"""Cosine of the circuits' net directions, sum_i importance_i * decoder_i.

It survives features that an SAE splits in two, or merges, and another seed of the SAE.
"""

from __future__ import annotations

import numpy as np

from refusal.comparison.similarity import cosine


def similarity(a: np.ndarray, b: np.ndarray, *, directions: np.ndarray | None = None, **_: object) -> float | None:
    """Return the cosine in [-1, 1] of ``importances @ directions``, [n_features] and [n_features, d_model].

    None if one is zero, or without directions.
    """
    return None if directions is None else cosine.similarity(a @ directions, b @ directions)
