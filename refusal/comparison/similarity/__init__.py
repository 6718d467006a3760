"""How much two categories' circuits overlap: one file a measure, all with the same call.

    similarity(a, b, *, threshold=0.1, directions=None) -> float | None

``a`` and ``b`` are importances of the same features, [n_features], signed; ``threshold`` makes a circuit's nodes of
them (:func:`nodes`); ``directions`` [n_features, d_model] is what a unit of each feature adds. A measure names the
options that it uses and takes the others as ``**_``. It is symmetric, 1 for a circuit against itself, does not
depend on the scale of either, and is None where it is undefined (a circuit without importance).

A new measure is a new file in this folder: :func:`measures` finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pkgutil import iter_modules

import numpy as np

Measure = Callable[..., "float | None"]
Matrix = list[list["float | None"]]
"""[n_categories, n_categories], None where undefined: as it goes to JSON."""


def measures() -> dict[str, Measure]:
    """Return every measure by its file's name, in alphabetical order."""
    names = sorted(module.name for module in iter_modules(__path__))
    return {name: import_module(f"{__name__}.{name}").similarity for name in names}


def matrix(vectors: Sequence[np.ndarray] | np.ndarray, measure: Measure, **options: object) -> Matrix:
    """Return a measure between all pairs of categories.

    Args:
        vectors: Importances, one vector [n_features] a category.
        measure: One of :func:`measures`, or any function with their call.
        **options: Handed on to the measure: ``threshold``, ``directions``.
    """
    values: Matrix = [[None] * len(vectors) for _ in vectors]
    for i, a in enumerate(vectors):
        values[i][i] = None if measure(a, a, **options) is None else 1.0
        for j, b in enumerate(vectors[:i]):
            values[i][j] = values[j][i] = measure(a, b, **options)
    return values


def nodes(importances: np.ndarray, threshold: float) -> np.ndarray:
    """Return which features are a circuit's nodes, bool [n_features].

    Those with at least ``threshold`` of the largest |importance|; the sign does not matter, and none are nodes of a
    zero vector.
    """
    size = np.abs(importances)
    return (size >= threshold * size.max(initial=0.0)) & (size > 0)
