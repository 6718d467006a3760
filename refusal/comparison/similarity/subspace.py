"""Principal angles between the spans of the circuits' decoder directions.

1. A circuit's span: the directions of its nodes, each weighted by its |importance|; of their principal axes those
   with at least ``threshold`` of the largest singular value. (Plain spans would count two halves of a split feature,
   which differ by little, as two dimensions.)
2. Similarity: sum of the squared cosines of the principal angles over the larger dimension. 1 for equal spans, 0 for
   orthogonal ones, k / n for a k-dimensional span within an n-dimensional one.

Source: Bjorck & Golub 1973 (angles from the singular values of the product of orthonormal bases).
"""

from __future__ import annotations

import numpy as np

from refusal.comparison.similarity import nodes


def similarity(
    a: np.ndarray, b: np.ndarray, *, threshold: float = 0.1, directions: np.ndarray | None = None, **_: object
) -> float | None:
    """Return the overlap in [0, 1] of the spans of two circuits' nodes; None if one is empty, or without directions.

    Args:
        a: Importances [n_features].
        b: Importances [n_features].
        threshold: Of nodes, and of axes within a span.
        directions: What a unit of each feature adds, [n_features, d_model].
    """
    if directions is None:
        return None
    basis_a, basis_b = _basis(a, directions, threshold), _basis(b, directions, threshold)
    dimensions = max(len(basis_a), len(basis_b))
    if not (len(basis_a) and len(basis_b)):
        return None
    return float(min(1.0, np.square(basis_a @ basis_b.T).sum() / dimensions))


def _basis(importances: np.ndarray, directions: np.ndarray, threshold: float) -> np.ndarray:
    """Return an orthonormal basis of a circuit's span, [n_axes, d_model]."""
    chosen = np.flatnonzero(nodes(importances, threshold))
    weights = np.abs(importances[chosen])
    weighted = (weights / weights.max(initial=0.0))[:, None] * directions[chosen].astype(float)
    # Singular vectors from the smaller of the two Gram matrices: a circuit has few nodes, or the model few dimensions.
    if len(weighted) > weighted.shape[1]:
        squares, axes = np.linalg.eigh(weighted.T @ weighted)
        return axes.T[nodes(squares, threshold**2)]
    squares, mixes = np.linalg.eigh(weighted @ weighted.T)
    kept = nodes(squares, threshold**2)
    return (mixes[:, kept] / np.sqrt(squares[kept])).T @ weighted
