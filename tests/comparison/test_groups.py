from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refusal.comparison.groups import core_and_tail, effective_circuits, group_categories


def planted(sizes: list[int], within: float, between: float, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """A transfer matrix with 1 on the diagonal."""
    label = np.repeat(np.arange(len(sizes)), sizes)
    transfer = np.where(label[:, None] == label, within, between)
    transfer = transfer + np.random.default_rng(seed).normal(0, noise, transfer.shape)
    np.fill_diagonal(transfer, 1)
    return transfer


THREE = [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]


@pytest.mark.parametrize("between", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_three_planted_groups_are_found_even_if_they_share_half(between: float, seed: int):
    assert group_categories(planted([4, 3, 3], 1, between, 0.04, seed)).members == THREE


@pytest.mark.parametrize("seed", range(5))
def test_all_shared_is_one_group_and_nothing_shared_is_none(seed: int):
    assert group_categories(planted([10], 1, 0, 0.04, seed)).members == [list(range(10))]
    assert group_categories(planted([10], 0, 0, 0.04, seed)).members == [[c] for c in range(10)]
    assert group_categories(planted([10], 0.7, 0, 0.04, seed)).members == [list(range(10))]
    assert group_categories(planted([10], 0.3, 0, 0.04, seed)).members == [[c] for c in range(10)]


def test_one_that_stands_apart():
    assert group_categories(planted([1, 5], 0.75, 0.05, 0.04)).members == [[1, 2, 3, 4, 5], [0]]


def test_few_categories():
    assert group_categories(np.ones((1, 1))).members == [[0]]
    assert group_categories(np.zeros((0, 0))).members == []
    assert group_categories(np.array([[1, 0.9], [0.7, 1]])).members == [[0, 1]]
    assert group_categories(np.array([[1, 0.9], [0.0, 1]])).members == [[0], [1]]


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30)
def test_groups_do_not_depend_on_the_order_and_leaves_keep_them_together(seed: int):
    order = np.random.default_rng(seed).permutation(10)
    transfer = planted([4, 3, 3], 0.9, 0.2, 0.05, 1)[np.ix_(order, order)]
    found = group_categories(transfer)
    assert sorted(sorted(int(order[c]) for c in group) for group in found.members) == THREE
    assert sorted(found.order) == list(range(10))
    owner = {c: g for g, group in enumerate(found.members) for c in group}
    assert np.count_nonzero(np.diff([owner[c] for c in found.order])) == 2


def test_effective_circuits():
    assert effective_circuits(np.ones((10, 10))) == pytest.approx(1)
    assert effective_circuits(np.eye(10)) == pytest.approx(10)
    # eigenvalues 4, 3, 3: exp(-(0.4 ln 0.4 + 2 * 0.3 ln 0.3)) = 2.97
    assert effective_circuits(planted([4, 3, 3], 1, 0)) == pytest.approx(2.9711, abs=1e-3)
    # antisymmetric parts do not count; [[1, 2], [2, 1]] has eigenvalues 3 and -1: one circuit
    assert effective_circuits(np.array([[1.0, 3], [1, 1]])) == pytest.approx(1)
    assert effective_circuits(-np.eye(2)) is None


def test_core_and_tail_of_planted_mechanisms():
    assert core_and_tail(planted([10], 1, 0)) == pytest.approx((1, 0))
    assert core_and_tail(np.eye(10)) == pytest.approx((0, 1))
    assert core_and_tail(planted([10], 0.4, 0)) == pytest.approx((0.4, 0.6))
    # three groups, half shared: all use half, a group the rest, nobody has anything alone
    assert core_and_tail(planted([4, 3, 3], 1, 0.5)) == pytest.approx((0.5, 0))


def test_core_and_tail_are_ratios_of_sums():
    # own drops 4, 2, 2; tested on 0: others achieve 1 and 2; on 1: 3 (at most its own 2) and -1 (nothing); on 2: 1, 1
    drops = np.array([[4.0, 3, 1], [1, 2, 1], [2, -1, 2]])
    assert core_and_tail(drops) == pytest.approx(((1 + 0 + 1) / 8, (2 + 0 + 1) / 8))
    assert core_and_tail(np.ones((1, 1))) is None
    assert core_and_tail(-np.eye(3)) is None
