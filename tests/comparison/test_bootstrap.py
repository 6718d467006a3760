from __future__ import annotations

import numpy as np
import pytest

from refusal.comparison.bootstrap import combine_interval, draw_counts, percentile_interval, transfer_interval


def study(transfer: float, n_prompts: int, noise: float, rng: np.random.Generator, n_categories: int = 4):
    """Drops of 1 for a prompt's own category and ``transfer`` for others', times each prompt's effect, plus noise."""
    category = np.repeat(np.arange(n_categories), n_prompts)
    expected = np.where(np.arange(n_categories)[:, None] == category, 1.0, transfer)
    drops = expected * rng.normal(5, 1, len(category)) + rng.normal(0, noise, expected.shape)
    return drops, category


def test_counts_draw_each_category_anew():
    category = np.array([0, 1, 1, 0, 1, 2])
    counts = draw_counts(category, 4000, np.random.default_rng(0))
    for c, n in enumerate([2, 3, 1]):
        assert np.all(counts[:, category == c].sum(1) == n)
    assert counts.mean(0) == pytest.approx(np.ones(6), abs=0.06)
    # a binomial of 3 draws of 1/3 has variance 3 * 1/3 * 2/3
    assert counts[:, 1].var() == pytest.approx(2 / 3, abs=0.06)


def test_interval_of_a_mean_is_the_normal_one():
    rng = np.random.default_rng(0)
    values = rng.normal(3, 2, 400)
    found = percentile_interval(lambda counts: counts @ values / 400, np.zeros(400, dtype=int), 4000, rng)
    half = 1.96 * values.std() / 20
    assert found == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_transfer_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        drops, category = study(0.4, 30, 3.0, rng)
        found = transfer_interval(drops, category, 400, rng)
        assert found is not None
        covered += found[0] <= 0.4 <= found[1]
    assert 0.90 <= covered / 200 <= 0.985


def test_it_is_a_ratio_of_means_over_categories():
    # without spread within categories: own 4 and 2 (any number of prompts), others 1 and 2: (1 + 2) / (4 + 2)
    drops = np.array([[4.0, 4, 4, 2], [1, 1, 1, 2]])
    found = transfer_interval(drops, np.array([0, 0, 0, 1]), 50, np.random.default_rng(0))
    assert found == pytest.approx((0.5, 0.5))


def test_only_voting_categories_count():
    rng = np.random.default_rng(0)
    drops, category = study(0.4, 20, 0.5, rng)
    drops[3], drops[:, category == 3] = np.nan, np.nan
    found = transfer_interval(drops, category, 200, rng, voting=[0, 1, 2])
    assert found is not None
    assert 0.3 < found[0] < 0.4 < found[1] < 0.5
    assert transfer_interval(drops, category, 200, rng, voting=[1]) is None


def test_an_own_drop_near_zero_has_no_interval():
    rng = np.random.default_rng(0)
    drops, category = study(0.4, 20, 3.0, rng)
    assert transfer_interval(drops - 5, category, 200, rng) is None


def test_scale_free():
    drops, category = study(0.4, 20, 3.0, np.random.default_rng(0))
    first = transfer_interval(drops, category, 200, np.random.default_rng(1))
    assert transfer_interval(7 * drops, category, 200, np.random.default_rng(1)) == pytest.approx(first)


def test_combined_half_widths():
    # half widths 0.03 and 0.04, 1.96 * sd = 0.04: 0.05 and 0.0566
    low, high = combine_interval(0.47, 0.54, 0.5, 0.04 / 1.96)
    assert (low, high) == pytest.approx((0.45, 0.5 + 0.04 * np.sqrt(2)))
    assert combine_interval(0.4, 0.6, 0.5, 0.0) == pytest.approx((0.4, 0.6))
    # an index outside its own bootstrap interval stays inside the combined one
    assert combine_interval(0.52, 0.6, 0.5, 0.01) == pytest.approx((0.5 - 0.0196, 0.5 + np.hypot(0.1, 0.0196)))
