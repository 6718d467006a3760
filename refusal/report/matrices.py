"""A matrix over categories as it is shown: labels, order, values that may be missing, and the noise ceiling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Values = Sequence[Sequence[float | None]]


@dataclass(frozen=True)
class Matrix:
    """Values in [0, 1] (or None: undefined) between the categories ``labels``; rows and columns in the same order."""

    labels: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    ceiling: tuple[float | None, ...] | None = None

    def ordered(self, order: Sequence[str]) -> Matrix:
        """Return the same matrix with its categories in the order of ``order`` (names it lacks are passed over)."""
        index = [self.labels.index(name) for name in order if name in self.labels]
        values = tuple(tuple(self.values[i][j] for j in index) for i in index)
        ceiling = None if self.ceiling is None else tuple(self.ceiling[i] for i in index)
        return replace(self, labels=tuple(self.labels[i] for i in index), values=values, ceiling=ceiling)

    def mean_off_diagonal(self) -> float | None:
        """Return the mean over the defined values of two different categories, None where there is none."""
        found = [v for i, row in enumerate(self.values) for j, v in enumerate(row) if i != j and v is not None]
        return float(np.mean(found)) if found else None

    def mean_diagonal(self) -> float | None:
        """Return the mean over the defined values on the diagonal, None where there is none."""
        found = [row[i] for i, row in enumerate(self.values) if row[i] is not None]
        return float(np.mean(found)) if found else None  # type: ignore[arg-type]

    def defined(self) -> bool:
        """Say whether there is a single value to show."""
        return any(value is not None for row in self.values for value in row)


def read_matrix(measure: Mapping[str, Any] | None, comparison: Mapping[str, Any], key: str = "matrix") -> Matrix | None:
    """Return one measure's matrix, or None where the study has none.

    A matrix is over all categories, or only over those that vote; its size says which.
    """
    values = (measure or {}).get(key)
    if not values:
        return None
    names = comparison["categories"] if len(values) == len(comparison["categories"]) else comparison["voting"]
    ceiling = (measure or {}).get("ceiling")
    return Matrix(tuple(names), tuple(tuple(row) for row in values), tuple(ceiling) if ceiling else None)


def cluster_order(matrix: Matrix) -> list[str]:
    """Return the categories so that alike ones are neighbours: average linkage on 1 - (M + M')/2."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(matrix.labels) < 3:
        return list(matrix.labels)
    values = np.array([[np.nan if v is None else v for v in row] for row in matrix.values], dtype=float)
    both = np.stack([values, values.T])
    mean = np.where(np.isnan(both), 0, both).sum(0) / np.maximum((~np.isnan(both)).sum(0), 1)  # both undefined: 0
    distance = np.clip(1 - mean, 0, 2)
    np.fill_diagonal(distance, 0)
    leaves = leaves_list(linkage(squareform(distance, checks=False), "average", optimal_ordering=True))
    return [matrix.labels[i] for i in leaves]


def study_order(comparison: Mapping[str, Any]) -> list[str]:
    """Return one order of the categories for every picture: from transfer, else from the circuits' cosine."""
    transfer = comparison.get("transfer") or {}
    combined = (comparison.get("combined") or {}).get("measures") or {}
    matrix = read_matrix(transfer.get("direct"), comparison) or read_matrix(combined.get("cosine"), comparison)
    order = cluster_order(matrix) if matrix else []
    return order + [name for name in comparison["categories"] if name not in order]


def cell_text(value: float | None) -> str:
    """Return what stands in a cell: two decimals, or a dash where the value is undefined."""
    return "–" if value is None else f"{value + 0.0:.2f}".replace("-0.00", "0.00")


def short(name: str, length: int = 18) -> str:
    """Return a category's name on one line, cut to ``length`` characters."""
    line = " ".join(name.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"
