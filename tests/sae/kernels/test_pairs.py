"""Pairs by row and by feature."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from refusal.sae.kernels.pairs import Pairs


def test_a_worked_example():
    # row 0 has the features 2 and 0, row 1 none, row 2 has 2 and 1; of four features, 3 is active nowhere
    pairs = Pairs.of_rows(torch.tensor([0, 0, 2, 2]), torch.tensor([2, 0, 2, 1]), 3, 4)
    assert len(pairs) == 4
    assert pairs.row_offsets.tolist() == [0, 2, 2, 4]
    order, rows, offsets = pairs.by_feature
    assert order.tolist() == [1, 3, 0, 2]
    assert rows.tolist() == [0, 2, 0, 2]
    assert offsets.tolist() == [0, 1, 2, 4, 4]
    assert pairs.sum_by_feature(torch.tensor([1.0, 2.0, 3.0, 4.0])).tolist() == [2.0, 4.0, 4.0, 0.0]


def test_rows_with_equally_many_features():
    pairs = Pairs.of(torch.tensor([[2, 0], [1, 2]]), 4)
    assert (pairs.n_rows, pairs.n_features) == (2, 4)
    assert pairs.rows.tolist() == [0, 0, 1, 1]
    assert pairs.features.tolist() == [2, 0, 1, 2]
    assert pairs.row_offsets.tolist() == [0, 2, 4]


def test_no_pairs_at_all():
    none = torch.zeros(0, dtype=torch.int64)
    pairs = Pairs.of_rows(none, none, 2, 3)
    assert pairs.row_offsets.tolist() == [0, 0, 0]
    assert pairs.by_feature.offsets.tolist() == [0, 0, 0, 0]


@given(st.sets(st.tuples(st.integers(0, 6), st.integers(0, 8)), max_size=40))
def test_each_feature_has_its_rows_ascending(chosen: set[tuple[int, int]]):
    numbers = torch.tensor(sorted(chosen), dtype=torch.int64).reshape(-1, 2)
    pairs = Pairs.of_rows(numbers[:, 0], numbers[:, 1], 7, 9)
    order, rows, offsets = pairs.by_feature
    assert pairs.rows[order].tolist() == rows.tolist()
    for feature in range(9):
        expected = sorted(row for row, other in chosen if other == feature)
        assert rows[offsets[feature] : offsets[feature + 1]].tolist() == expected
