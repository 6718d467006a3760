from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from refusal.comparison.permutation import (
    above_chance,
    activity_bands,
    benjamini_hochberg,
    distinguishable,
    exact_p,
    gram,
)


def prompts(n_each: int, apart: float, rng: np.random.Generator, n_categories: int = 3, n_features: int = 30):
    """Importances of prompts that share one pattern and have ``apart`` of their category's own."""
    category = np.repeat(np.arange(n_categories), n_each)
    own = np.eye(n_features)[category + 1]
    return rng.exponential(1, (len(category), n_features)) + apart * own, category


def by_hand(cosines: np.ndarray, category: np.ndarray) -> float:
    """Mean over categories of the mean within, minus mean over pairs of categories of the mean between."""
    names = np.unique(category)
    within, between = [], []
    for a in names:
        for b in names:
            block = cosines[np.ix_(category == a, category == b)]
            if a == b:
                within.append((block.sum() - np.trace(block)) / (len(block) * (len(block) - 1)))
            else:
                between.append(block.mean())
    return float(np.mean(within) - np.mean(between))


def test_gram_is_the_cosine_for_sparse_and_dense():
    rows = np.array([[3.0, 4, 0], [4, 3, 0], [0, 0, -2], [0, 0, 0]])
    expected = [[1, 0.96, 0, 0], [0.96, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert gram(rows) == pytest.approx(np.array(expected))
    assert gram(sparse.csr_array(rows)) == pytest.approx(np.array(expected))


def test_statistic_gives_categories_of_any_size_equal_weight():
    rng = np.random.default_rng(0)
    cosines = gram(rng.normal(size=(14, 5)))
    category = np.array([0] * 3 + [1] * 9 + [2] * 2)
    found = distinguishable(cosines, category, 3, rng=rng, n=9)
    assert found.statistic == pytest.approx(by_hand(cosines, category), rel=1e-4)


def test_p_is_the_share_of_all_labellings():
    # 3 + 3 prompts: 20 labellings, in 10 mirrored pairs; p is the share that reaches the observed statistic
    rng = np.random.default_rng(3)
    cosines = gram(rng.normal(size=(6, 3)) + np.repeat([[0.7, 0, 0], [0, 0.7, 0]], 3, axis=0))
    category = np.repeat([0, 1], 3)
    every = {tuple(rng.permuted(category)) for _ in range(2000)}
    assert len(every) == 20
    observed = by_hand(cosines, category)
    share = np.mean([by_hand(cosines, np.array(labels)) >= observed - 1e-9 for labels in every])
    found = distinguishable(cosines, category, 2, rng=rng, n=20_000)
    assert 0.05 < share < 0.5
    assert found.p == pytest.approx(share, abs=0.01)
    assert found.pairs[0][1] == pytest.approx(share, abs=0.01)


def test_categories_apart_are_told_apart_and_equal_ones_are_not():
    rng = np.random.default_rng(0)
    rows, category = prompts(20, 3.0, rng)
    rows[category == 2] = rows[category == 1][rng.permutation(20)]  # the last is the second again
    found = distinguishable(gram(rows), category, 3, rng=rng, n=999)
    assert found.p == 1 / 1000
    assert found.pairs[0][1] == found.pairs[1][0] == found.pairs[0][2] == 1 / 1000
    assert found.pairs[1][2] is not None
    assert found.pairs[1][2] > 0.5
    # three tests, two at 0.001: adjusted 0.0015
    assert found.pairs_adjusted[0][1] == pytest.approx(0.0015)
    assert [found.pairs[c][c] for c in range(3)] == [None] * 3


def test_scatter_cannot_hide_a_difference():
    rng = np.random.default_rng(0)
    wide, tight = rng.normal(size=(60, 40)), 4 * np.eye(40)[0] + 0.3 * rng.normal(size=(8, 40))
    found = distinguishable(gram(np.concatenate([wide, tight])), np.repeat([0, 1], [60, 8]), 2, rng=rng, n=999)
    assert found.p == 1 / 1000


def test_too_few_prompts_are_left_out():
    rng = np.random.default_rng(0)
    rows, category = prompts(10, 3.0, rng)
    category[category == 2] = 3
    category[-1] = 2
    found = distinguishable(gram(rows), category, 5, rng=rng, n=99)
    assert found.p == 0.01
    assert found.pairs[2] == found.pairs[4] == [None] * 5
    alone = distinguishable(gram(rows[:10]), category[:10], 5, rng=rng, n=99)
    assert (alone.statistic, alone.p) == (None, None)


@pytest.mark.parametrize("rows", [np.ones((12, 4)), np.zeros((12, 4))])
def test_equal_prompts_have_p_one(rows: np.ndarray):
    found = distinguishable(gram(rows), np.repeat([0, 1, 2], 4), 3, rng=np.random.default_rng(0), n=199)
    assert found.p == 1
    assert found.pairs_adjusted[0] == [None, 1, 1]


@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-9, 1.0, 1e9]))
@settings(max_examples=15)
def test_neither_order_nor_scale_matters(seed: int, scale: float):
    rng = np.random.default_rng(seed)
    rows, category = prompts(8, 1.0, rng)
    first = distinguishable(gram(rows), category, 3, rng=np.random.default_rng(1), n=999)
    order, features = rng.permutation(len(rows)), rng.permutation(rows.shape[1])
    size = scale * rng.uniform(1, 2, (len(rows), 1))  # each prompt's own
    changed = (size * rows)[np.ix_(order, features)]
    second = distinguishable(gram(changed), category[order], 3, rng=np.random.default_rng(2), n=999)
    assert second.statistic == pytest.approx(first.statistic, abs=1e-5)
    assert first.p is not None
    assert second.p == pytest.approx(first.p, abs=5 * np.sqrt(first.p / 999) + 0.003)
    assert second.p is not None
    assert 0 < second.p <= 1


def test_chance_of_one_feature_in_a_band_of_eight():
    # both circuits are one feature of eight that are equally active: they coincide by chance with p = 1/8
    vectors = np.zeros((2, 12))
    vectors[:, 5] = 1, 3
    activity = np.repeat([0.2, 0.7], [4, 8])
    activity[5] = 0.7
    found = above_chance(vectors, activity, rng=np.random.default_rng(0), n=20_000)
    assert found.statistic == pytest.approx(1)
    assert found.p == pytest.approx(1 / 8, abs=0.01)


def test_chance_is_that_of_all_permutations():
    rng = np.random.default_rng(5)
    vectors = rng.exponential(1, (2, 60)) * (rng.random((2, 60)) < 0.3)
    vectors[1] += 0.2 * vectors[0]
    a, b = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    share = np.mean([a @ rng.permuted(b) >= a @ b - 1e-9 for _ in range(20_000)])
    found = [above_chance(vectors, np.full(60, 0.5), rng=np.random.default_rng(s), n=500).p for s in range(400)]
    assert 0.1 < share < 0.6
    # of the 60 shifts one is none at all, and counts
    assert np.mean(np.array(found, dtype=float)) == pytest.approx(1 / 60 + 59 / 60 * share, abs=0.01)


def test_shared_features_are_above_chance_and_others_are_not():
    rng = np.random.default_rng(0)
    vectors = rng.exponential(1, (4, 200)) * (rng.random((4, 200)) < 0.1)
    vectors[:2, :5] += 5
    vectors[3] = 0
    found = above_chance(vectors, rng.random(200), rng=rng, n=999)
    assert found.p is not None
    assert found.p <= 0.005
    assert found.pairs[0][1] == 0.001
    assert found.pairs[0][2] is not None
    assert found.pairs[0][2] > 0.05
    assert found.pairs[3] == [None] * 4
    assert above_chance(vectors[2:], rng.random(200), rng=rng).p is None


def test_overlap_that_activity_or_site_explains_is_not_above_chance():
    rng = np.random.default_rng(1)
    activity = rng.uniform(0.01, 1, 300)
    vectors = activity**2 * rng.exponential(1, (2, 300))
    fooled = above_chance(vectors, activity, n_bands=1, rng=rng, n=999).p
    found = above_chance(vectors, activity, rng=rng, n=999).p
    assert fooled is not None
    assert fooled < 0.01
    assert found is not None
    assert found > 0.05
    site = np.repeat([0, 1, 2], 100)
    vectors = np.where(site == 1, 5.0, 0.2) * rng.exponential(1, (2, 300))
    fooled = above_chance(vectors, activity, rng=rng, n=999).p
    found = above_chance(vectors, activity, site=site, rng=rng, n=999).p
    assert fooled == 0.001
    assert found is not None
    assert found > 0.05


def test_bands_hold_equally_many_and_keep_ties_and_sites_apart():
    activity = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.9, 0.9, 0.0, 0.5])
    site = np.array([0] * 8 + [1] * 2)
    band = activity_bands(activity, site, n_bands=2)
    groups = [np.flatnonzero(band == b).tolist() for b in np.unique(band)]
    assert groups == [[0], [1, 2, 3, 4, 5], [6, 7], [8], [9]]
    assert np.bincount(activity_bands(np.linspace(0.1, 1, 100), None, 10))[1:].tolist() == [10] * 10


def test_exact_p_is_never_zero():
    assert exact_p(0, 10_000) == 1 / 10_001
    assert exact_p(10_000, 10_000) == 1


def test_benjamini_hochberg_by_hand():
    # 0.01 * 4 / 1, 0.03 * 4 / 3 (0.02 * 4 / 2 is the same), 0.02 * 4 / 2, 0.5
    assert benjamini_hochberg([0.01, 0.03, 0.02, 0.5]) == pytest.approx([0.04, 0.04, 0.04, 0.5])
    assert benjamini_hochberg([0.9, 0.8]) == pytest.approx([0.9, 0.9])
    assert len(benjamini_hochberg([])) == 0


@given(st.lists(st.floats(1e-4, 1), min_size=1, max_size=50))
def test_benjamini_hochberg_is_monotone_and_never_smaller(p: list[float]):
    raw = np.array(p)
    adjusted = benjamini_hochberg(raw)
    assert np.all(adjusted >= raw)
    assert np.all(adjusted <= 1)
    assert np.all(np.diff(adjusted[np.argsort(raw)]) >= 0)
    order = np.random.default_rng(0).permutation(len(raw))
    assert benjamini_hochberg(raw[order]) == pytest.approx(adjusted[order])
