"""Causal transfer: its matrix, the index as a ratio of means, and the block from which it is taken."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal.comparison.transfer import (
    Drops,
    by_category,
    full_starts,
    index_of,
    latest_deciding_start,
    measure_direct,
    measure_drops,
    measure_window,
    own_drop,
    own_reach,
    transfer_matrix,
    voting_layers,
)
from tests.comparison.hand import one_mechanism, two_mechanisms

DROPS = np.array([[10.0, 2.0, 0.0], [4.0, 6.0, 0.0], [0.0, 0.0, 2.0]])


def test_the_index_is_a_ratio_of_means() -> None:
    assert index_of(DROPS, [0, 1, 2]) == pytest.approx((6 / 6) / (18 / 3))
    assert index_of(DROPS, [0, 1]) == pytest.approx(3 / 8)  # never the mean of 2/6 and 4/10


def test_no_index_with_one_category_or_without_an_own_drop() -> None:
    assert math.isnan(index_of(DROPS, [1]))
    assert math.isnan(index_of(DROPS, []))
    assert math.isnan(index_of(-DROPS, [0, 1]))
    assert math.isnan(index_of(np.full((2, 2), np.nan), [0, 1]))


def test_the_own_drop_is_a_mean_over_voting_categories() -> None:
    assert own_drop(DROPS, [0, 1]) == pytest.approx(8)


def test_categories_without_a_vote_do_not_count() -> None:
    drops = DROPS.copy()
    drops[2], drops[:, 2] = 99, np.nan
    assert index_of(drops, [0, 1]) == pytest.approx(3 / 8)


def test_the_transfer_matrix_is_a_share_of_the_tested_categorys_own_drop() -> None:
    matrix = transfer_matrix(DROPS)
    np.testing.assert_allclose(matrix[:, 0], [1, 0.4, 0])
    np.testing.assert_allclose(matrix[:, 1], [1 / 3, 1, 0])


def test_a_tiny_own_drop_does_not_make_a_huge_transfer() -> None:
    matrix = transfer_matrix(np.array([[8.0, 1.0], [0.0, 0.0]]))  # mean own drop 4, so the divisor is at least 1
    np.testing.assert_allclose(matrix, [[1, 1], [0, 0]])
    assert np.isnan(transfer_matrix(np.array([[-1.0, 1], [1, -1]]))).all()


def test_a_category_without_prompts_leaves_gaps() -> None:
    values = np.array([[1.0, 3.0, 5.0]])
    np.testing.assert_array_equal(by_category(values, np.array([0, 0, 2]), 3), [[2, np.nan, 5]])


def test_drops_by_part() -> None:
    drops = Drops(0, np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]]), np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    assert drops.matrix().tolist() == [[1.5, 3.5], [5.5, 7.5]]
    assert drops.by_part().tolist() == [[[1, 3], [5, 7]], [[2, 4], [6, 8]]]


@pytest.mark.parametrize(
    ("own", "start"),
    [
        ([10, 10, 6, 1], 2),
        ([10, 10, 5, 1], 2),  # half of the best is enough
        ([10, 10, 4.9, 1], 1),
        ([1, 10, 2, 3], 1),
        ([4, 1, 2, 0], 2),  # latest, even after a gap
        ([10], 0),
        ([-3, -1, -2], 1),  # nothing falls: no crash, the verdict sees the explained share
        ([0, 0], 1),
    ],
)
def test_the_index_starts_at_the_latest_block_with_half_the_best_own_drop(own: list[float], start: int) -> None:
    assert latest_deciding_start(np.array(own)) == start


@given(st.integers(1, 200), st.data())
def test_starts_measured_in_full_are_few_and_have_the_indexs(stop: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, stop - 1))
    starts = full_starts(stop, start)
    assert start in starts
    assert len(starts) <= 9
    assert starts == sorted(set(starts))
    assert {0, stop - 1} <= set(starts) <= set(range(stop))


@pytest.mark.parametrize(("n_layers", "voting"), [(1, 1), (2, 2), (5, 4), (6, 5), (8, 7), (10, 8), (15, 12), (32, 26)])
def test_the_last_fifth_has_no_vote(n_layers: int, voting: int) -> None:
    assert voting_layers(n_layers) == voting


def test_a_modular_model_by_hand() -> None:
    # Refusing adds 12 to m: 3 by the embedding, which no component writes, 3 by mlp_0, and 6 by mlp_1.
    direct = measure_direct(two_mechanisms(), [0, 1], seed=0)
    np.testing.assert_allclose(direct.reach, [[9, 9], [6, 6]], atol=1e-4)
    assert direct.start == 1
    np.testing.assert_allclose(direct.index_drops.matrix(), [[6, 0], [0, 6]], atol=1e-4)
    assert [drops.start for drops in direct.drops] == [0, 1]
    assert direct.late_share == pytest.approx(0)
    assert direct.divergence == pytest.approx(0, abs=1e-6)


def test_a_monolithic_model_by_hand() -> None:
    direct = measure_direct(one_mechanism(), [0, 1], seed=0)
    np.testing.assert_allclose(direct.index_drops.matrix(), [[6, 6], [6, 6]], atol=1e-4)
    assert index_of(direct.index_drops.matrix(), [0, 1]) == pytest.approx(1)


def test_window_knocks_out_all_that_is_written_together_from_its_start_on() -> None:
    for study, matrix in ((two_mechanisms(), [[9, 0], [0, 9]]), (one_mechanism(), [[9, 9], [9, 9]])):
        np.testing.assert_allclose(measure_window(study, 0).matrix(), matrix, atol=1e-4)


def test_what_a_knock_out_takes_beyond_the_effect_is_not_within_its_reach() -> None:
    study = one_mechanism()
    study.contrast.score[:] = np.where(study.contrast.refused, 7, 0)  # 7 nats, where knocking out takes 9 and 6
    np.testing.assert_allclose(own_reach(study, 2), [[7, 7], [6, 6]], atol=1e-4)


def test_knocking_out_nothing_lowers_nothing() -> None:
    study = one_mechanism()
    drops = measure_drops(study, np.zeros((4, 2, 2, 2, 2), np.float32), 0, 2)
    np.testing.assert_array_equal(drops.matrix(), 0)
