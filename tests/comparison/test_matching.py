"""Features of two autoencoders are matched by direction; what has no partner is not shared."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal.comparison.matching import MIN_COSINE, aligned, match
from refusal.comparison.similarity import measures

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.integers(1, 12)
COUNTED = ("cosine", "weighted_jaccard", "node_jaccard")


def dictionary(rng: np.random.Generator, n: int, d_model: int = 64) -> np.ndarray:
    """So few directions in so many dimensions that no two of them are near."""
    return rng.normal(size=(n, d_model))


def similarities(a: np.ndarray, b: np.ndarray, first: np.ndarray, second: np.ndarray) -> list[float | None]:
    one, other = aligned(a, b, match(first, second))
    return [measures()[name](one, other) for name in COUNTED]


@given(SEEDS, SIZES)
def test_permuted_and_rescaled_features_are_the_same_circuit(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    directions, importances, order = dictionary(rng, n), rng.normal(size=n) + 3, rng.permutation(n)
    other = directions[order] * rng.uniform(0.1, 10, size=(n, 1))
    assert similarities(importances, importances[order], directions, other) == pytest.approx([1, 1, 1])


@given(SEEDS, SIZES, SIZES)
def test_orthogonal_dictionaries_share_nothing(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(64, 64)))[0]
    a, b = rng.normal(size=n) + 3, rng.normal(size=m) + 3
    assert len(match(axes[:n], axes[n : n + m]).cosine) == 0
    assert similarities(a, b, axes[:n], axes[n : n + m]) == [0, 0, 0]


@given(SEEDS, SIZES, SIZES)
def test_a_feature_has_one_partner_at_most_and_a_near_one(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    found = match(rng.normal(size=(n, 3)), rng.normal(size=(m, 3)))
    assert len(set(found.first)) == len(found.first) == len(set(found.second))
    assert (found.cosine >= MIN_COSINE).all()


@given(SEEDS, SIZES, SIZES)
def test_nothing_is_lost_when_features_are_aligned(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    first, second, a, b = rng.normal(size=(n, 3)), rng.normal(size=(m, 3)), rng.normal(size=(2, n)), rng.normal(size=m)
    one, other = aligned(a, np.stack([b, b]), match(first, second))
    assert one.shape == other.shape
    np.testing.assert_allclose(np.sort(one[one != 0]), np.sort(a.ravel()))
    assert np.abs(other).sum() == pytest.approx(2 * np.abs(b).sum())


def test_the_best_sum_wins_over_the_nearest_pair() -> None:
    # Angles in degrees: first 0 and 20, second 15 and 35. The nearest pair is (20, 15), but it would leave (0, 35).
    first, second = (np.stack([np.cos(a), np.sin(a)], 1) for a in (np.radians([0, 20]), np.radians([15, 35])))
    found = match(first, second)
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(0, 0), (1, 1)]
    np.testing.assert_allclose(found.cosine, np.cos(np.radians([15, 15])))


def test_a_pair_too_far_apart_takes_no_partner_away() -> None:
    # The far pair (0, 80) counts nothing, so 40 goes to whom it fits; 80 and 0 stay alone.
    angles = np.radians([0, 40, 80])
    directions = np.stack([np.cos(angles), np.sin(angles)], 1)
    found = match(directions[:1], directions[[2, 1]])
    assert (found.first.tolist(), found.second.tolist()) == ([0], [1])
    assert len(match(directions[:1], directions[2:]).cosine) == 0


def test_importance_without_a_partner_counts_as_disjoint() -> None:
    # Feature 0 recurs as 1, the others do not: cosine (3 * 3) / (5 * 5), of nodes one of three.
    first = np.array([[1.0, 0, 0], [0, 1, 0]])
    second = np.array([[0.0, 0, 1], [1, 0, 0]])
    cosine, _, jaccard = similarities(np.array([3.0, 4]), np.array([4.0, 3]), first, second)
    assert cosine == pytest.approx(9 / 25)
    assert jaccard == pytest.approx(1 / 3)
