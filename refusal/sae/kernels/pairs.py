"""Which features are active in which rows: a list of pairs, whatever their number in a row.

Everything a training step multiplies is summed over such pairs, by row (reconstruction) or by feature (gradients of
the weights). They stand in the order of their rows; the order by feature is found once, when it is first needed.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from refusal.sae.kernels import loops


class ByFeature(NamedTuple):
    """The pairs in the order of their features, those of one feature in the order of their rows."""

    order: Tensor
    """Place of each in the order by row, int64 [n_pairs]."""
    rows: Tensor
    """int64 [n_pairs]"""
    offsets: Tensor
    """Where each feature's pairs begin, and at last their number, int64 [n_features + 1]."""


class Pairs:
    """Pairs of a row and a feature that is active in it; no pair stands twice.

    Args:
        row_offsets: Where each row's pairs begin, and at last their number, int64 [n_rows + 1].
        features: int64 [n_pairs].
        n_features: Number of features, active or not.
    """

    def __init__(self, row_offsets: Tensor, features: Tensor, n_features: int) -> None:
        self.row_offsets, self.features = row_offsets, features
        self.n_rows, self.n_features = len(row_offsets) - 1, n_features

    @classmethod
    def of(cls, indices: Tensor, n_features: int) -> Pairs:
        """Return the pairs of rows with equally many features each: indices [n_rows, n]."""
        return cls(_even_offsets(*indices.shape, indices.device), indices.reshape(-1), n_features)

    @classmethod
    def of_rows(cls, rows: Tensor, features: Tensor, n_rows: int, n_features: int) -> Pairs:
        """Return the pairs of rows, ascending, and features, int64 [n_pairs] each."""
        return cls(offsets(rows, n_rows), features, n_features)

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def rows(self) -> Tensor:
        """The row of each, ascending, int64 [n_pairs]."""
        rows = torch.arange(self.n_rows, device=self.features.device)
        return rows.repeat_interleave(self.row_offsets.diff(), output_size=len(self))

    def sum_by_feature(self, values: Tensor) -> Tensor:
        """Return the sum of the values of each feature's pairs: [n_pairs] -> [n_features]."""
        return values.new_zeros(self.n_features).index_add_(0, self.features, values)

    @cached_property
    def by_feature(self) -> ByFeature:
        """The pairs sorted by feature."""
        features, n_features = self.features, self.n_features
        if features.device.type == "cpu":
            places = torch.empty_like(features), torch.empty_like(features), features.new_empty(n_features + 1)
            loops.sort_by_feature(*(x.contiguous().numpy() for x in (self.row_offsets, features, *places)))
            return ByFeature(*places)
        order = features.sort(stable=True).indices
        return ByFeature(order, self.rows[order], offsets(features, n_features))


@lru_cache(maxsize=1)
def _even_offsets(n_rows: int, n: int, device: torch.device) -> Tensor:
    return torch.arange(0, n_rows * n + 1, n, device=device)


def offsets(numbers: Tensor, n: int) -> Tensor:
    """Return where each of the numbers 0 to n - 1 begins once they are sorted, and at last how many there are."""
    places = torch.zeros(n + 1, dtype=torch.int64, device=numbers.device)
    torch.cumsum(torch.bincount(numbers, minlength=n), 0, out=places[1:])
    return places
