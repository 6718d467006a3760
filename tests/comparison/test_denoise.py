"""Noise is what varies within a kind of prompt; a posterior mean shrinks a difference where the noise is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal.comparison.denoise import Covariance, covariance, posterior_mean, scatter
from tests.comparison.hand import CATEGORY, HALF, REFUSED, contrast


def dense(found: Covariance) -> np.ndarray:
    return found.floor * np.eye(found.vectors.shape[1]) + (found.vectors.T * found.values) @ found.vectors


def test_scatter_is_around_the_mean_of_a_category_and_kind() -> None:
    x = np.arange(16.0)[:, None] ** 2
    rest = scatter(contrast(CATEGORY, REFUSED, HALF), x)
    refused, category = np.array(REFUSED, dtype=bool), np.array(CATEGORY)
    for kind in (refused, ~refused):
        for c in (0, 1):
            own = kind & (category == c)
            np.testing.assert_allclose(rest[own], x[own] - x[own].mean(0), rtol=1e-5)


def test_what_follows_the_score_is_no_scatter() -> None:
    rng = np.random.default_rng(0)
    score, other = rng.standard_normal((2, 16))
    x = np.stack([2 * score, other], 1)
    rest = scatter(contrast(CATEGORY, REFUSED, HALF, score=score), x)
    np.testing.assert_allclose(rest[:, 0], 0, atol=1e-6)
    assert rest[:, 1].std() > 0.5


def test_a_category_of_one_kind_has_scatter_too_and_an_empty_one_none() -> None:
    rest = scatter(contrast([0, 0, 0], [1, 1, 1], [0, 1, 0]), np.array([[1.0], [2.0], [6.0]]))
    assert rest[:, 0].tolist() == [-2, -1, 3]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_a_covariance_keeps_its_trace_and_lies_between_the_samples_and_the_identity(n: int, d: int, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal((n, d)) * np.linspace(0.1, 3, d)
    sample, found = x.T @ x / n, covariance(x)
    assert found.trace == pytest.approx(np.trace(sample))
    towards = found.floor / (np.trace(sample) / d)
    assert -1e-9 <= towards <= 1 + 1e-9
    expected = (1 - towards) * sample + towards * np.trace(sample) / d * np.eye(d)
    np.testing.assert_allclose(dense(found), expected, atol=1e-6 * np.trace(sample))


def test_with_many_prompts_the_covariance_is_the_samples_and_with_few_of_even_noise_the_identitys() -> None:
    rng = np.random.default_rng(0)
    assert covariance(rng.standard_normal((4000, 5)) * [1, 2, 3, 4, 5]).floor < 0.01 * 11  # their mean variance
    even = covariance(rng.standard_normal((20, 500)))
    assert even.floor > 0.9


def test_a_posterior_mean_by_hand() -> None:
    # Squares 18 and 2 with noise of 2 (1 + 3) = 8 and 4: the signal is (10 - 2) / 2 = 4 on average, tau^2 = 2.
    noise = Covariance(1.0, np.array([2.0]), np.array([[0.0, 1.0]]))
    difference, scale = np.array([[3.0, 3.0], [1.0, 1.0]]), np.array([2.0, 1.0])
    expected = [[3 * 2 / (2 + 2), 3 * 2 / (2 + 6)], [2 / (2 + 1), 2 / (2 + 3)]]
    np.testing.assert_allclose(posterior_mean(difference, noise, scale), expected)


def test_without_noise_or_with_endless_prompts_nothing_changes() -> None:
    difference = np.array([[3.0, 1.0]])
    still = Covariance(0.0, np.zeros(1), np.array([[0.0, 1.0]]))
    np.testing.assert_array_equal(posterior_mean(difference, still, np.ones(1)), difference)
    loud = Covariance(1.0, np.ones(1), np.array([[0.0, 1.0]]))
    np.testing.assert_allclose(posterior_mean(difference, loud, np.full(1, 1e-9)), difference, rtol=1e-6)
    np.testing.assert_array_equal(posterior_mean(0 * difference, loud, np.ones(1)), 0)


def test_a_difference_below_its_noise_keeps_a_direction() -> None:
    loud = Covariance(100.0, np.array([900.0]), np.array([[0.0, 1.0]]))
    first, second = posterior_mean(np.array([[1.0, 1.0]]), loud, np.ones(1))[0]
    assert 0 < second < first < 1
