"""Held-out figures, worked by hand."""

from __future__ import annotations

import pytest
import torch

from refusal.sae.quality.metrics import Quality, fvu

X = torch.tensor([[1.0, 0.0], [3.0, 0.0], [1.0, 2.0], [3.0, 2.0]])  # mean (2, 1); sum |x - mean|^2 = 4 * 2 = 8


def _quality(x: torch.Tensor, x_hat: torch.Tensor, batches: int = 1, origin: float = 0.0) -> Quality:
    quality = Quality(torch.full((2,), origin), 4)
    for a, b in zip(x.chunk(batches), x_hat.chunk(batches), strict=True):
        quality.add(a, b, torch.zeros(len(a), 1), torch.zeros(len(a), 1, dtype=torch.int64))
    return quality


def test_fvu_is_the_share_of_variance_that_is_left():
    x_hat = X.clone()
    x_hat[0, 0] += 2.0  # squared error 4 of 8
    assert fvu(X, x_hat) == 0.5
    assert _quality(X, x_hat).fvu == 0.5
    assert fvu(X, X.mean(0).expand(4, 2)) == 1.0


def test_a_constant_offset_counts_in_fvu_but_not_in_explained_variance():
    quality = _quality(X, X + 1.0)  # squared error 4 * 2 = 8; the error does not vary
    assert quality.fvu == 1.0
    assert quality.explained_variance == 1.0


def test_cosine_takes_all_rows_as_one_vector():
    # x . x_hat = 1 + 0, |x|^2 = 1 + 1, |x_hat|^2 = 1 + 1: 1/2; rows of zeros change nothing
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    x_hat = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    assert _quality(x, x_hat).cosine == pytest.approx(0.5)


def test_l0_and_dead_features_count_positive_codes():
    quality = Quality(torch.zeros(2), 4)
    # row 0 fires feature 0 (feature 1 is chosen, but 0); row 1 fires 0 and 3: l0 = 3/2; 1 and 2 never fire
    quality.add(X[:2], X[:2], torch.tensor([[1.0, 0.0], [2.0, 3.0]]), torch.tensor([[0, 1], [0, 3]]))
    assert quality.l0 == 1.5
    assert quality.dead_fraction == 0.5


def test_dense_features_fire_in_over_a_tenth_of_the_rows():
    quality = Quality(torch.zeros(2), 4)
    # of 20 rows feature 0 fires in 3 (15 %), feature 1 in 2 (10 %, not over), the others in none: 1 of 4
    fired = torch.zeros(20, 2)
    fired[:3, 0] = fired[:2, 1] = 1.0
    quality.add(torch.ones(20, 2), torch.ones(20, 2), fired, torch.tensor([0, 1]).expand(20, 2))
    assert quality.dense_fraction == 0.25


def test_batches_add_up_and_a_large_mean_costs_no_digits():
    x_hat = X + torch.tensor([[0.5, -0.5], [0.1, 0.0], [0.0, 0.2], [-0.3, 0.3]])
    whole = _quality(X, x_hat).result()
    assert _quality(X, x_hat, batches=3).result() == pytest.approx(whole)
    far = _quality(X + 4096.0, x_hat + 4096.0, batches=2, origin=4096.0)
    assert far.fvu == pytest.approx(whole["fvu"], rel=1e-3)  # float32 has steps of 0.0005 there


def test_merged_parts_are_what_adding_all_their_rows_is():
    x_hat = X + torch.tensor([[0.5, -0.5], [0.1, 0.0], [0.0, 0.2], [-0.3, 0.3]])
    values, indices = torch.tensor([[1.0], [0.0], [2.0], [3.0]]), torch.tensor([[0], [1], [2], [2]])
    whole, first, second = (Quality(torch.zeros(2), 4) for _ in range(3))
    whole.add(X, x_hat, values, indices)
    first.add(X[:3], x_hat[:3], values[:3], indices[:3])
    second.add(X[3:], x_hat[3:], values[3:], indices[3:])
    first.merge(second)
    assert first.result() == pytest.approx(whole.result())


def test_figures_without_a_meaning_are_none():
    assert set(Quality(torch.zeros(2), 4).result().values()) == {0, None}
    same = torch.ones(3, 2)
    assert fvu(same, same) is None
    quality = _quality(same, same)
    assert (quality.fvu, quality.explained_variance, quality.cosine) == (None, None, pytest.approx(1.0))
    assert _quality(torch.zeros(3, 2), torch.zeros(3, 2)).cosine is None
