"""The training step against a dense one, units, and dead features."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from refusal import InputError
from refusal.sae.recipe import Recipe
from refusal.sae.topk import TopK
from tests.sae.conftest import D_MODEL


def _sae(recipe: Recipe, rows: Tensor, **change: Any) -> TopK:
    recipe = replace(recipe, **change)
    sae = TopK(D_MODEL, recipe.hidden_dim, recipe.k, seed=recipe.seed, recipe=recipe)
    sae.fit_units(rows)
    with torch.no_grad():  # away from the start, where encoder and decoder are tied and biases are zero
        for parameter in sae.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5))
    sae.after_update()
    return sae


def _dense_loss(sae: TopK, batch: Tensor, dead: Tensor) -> Tensor:
    """Return the loss of ``SparseAutoencoder.step``, every product dense."""
    recipe = sae.recipe
    assert recipe is not None
    x = batch * sae.scale
    pre = (x - sae.b_dec) @ sae.W_enc + sae.b_enc

    def chosen(scores: Tensor, n: int) -> Tensor:
        return torch.zeros_like(pre).scatter(1, scores.topk(n, dim=1).indices, 1.0)

    x_hat = torch.relu(pre * chosen(pre, recipe.k)) @ sae.W_dec + sae.b_dec
    loss = (x - x_hat).square().mean()
    if dead.any():
        scores = torch.where(dead, pre, -torch.inf)
        n = min(recipe.aux_k, int(dead.sum()))
        error_hat = torch.relu(pre * chosen(scores, n)) @ sae.W_dec
        loss = loss + recipe.aux_coefficient * ((x - x_hat).detach() - error_hat).square().mean()
    return loss


@pytest.mark.parametrize("n_dead", [0, 5, 40])
def test_loss_and_gradients_are_those_of_a_dense_step(recipe: Recipe, rows: Tensor, n_dead: int):
    dead = torch.arange(recipe.hidden_dim) < n_dead
    gradients, losses = [], []
    for is_dense in (True, False):
        sae = _sae(recipe, rows, aux_coefficient=0.5)
        with torch.no_grad():
            sae.b_enc[dead] -= 100.0  # they never fire by themselves, ...
            sae.b_enc[:2] += 100.0 * bool(n_dead)  # ... but for two that come back in this very batch
        sae.rows_since_fired[dead] = recipe.dead_after_rows
        loss = _dense_loss(sae, rows, dead & (torch.arange(64) > 1)) if is_dense else sae.step(rows, 0.5).loss
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append([parameter.grad for parameter in sae.parameters()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for dense, sparse in zip(*gradients, strict=True):
        torch.testing.assert_close(sparse, dense, rtol=1e-5, atol=1e-5)


def test_units_are_those_of_the_rows(recipe: Recipe):
    # mean (3, 0), |x - mean|^2 = 4 on average: with d_model = 2 the scale is sqrt(2 / 4)
    x = torch.tensor([[5.0, 0.0], [1.0, 0.0], [3.0, 2.0], [3.0, -2.0]])
    sae = TopK(2, 4, 1)
    sae.fit_units(x)
    assert float(sae.scale) == pytest.approx(0.5**0.5)
    assert sae.b_dec.tolist() == pytest.approx([3.0 * 0.5**0.5, 0.0])
    sae.fit_units(torch.full((3, 2), 7.0))  # a site where nothing happens
    assert float(sae.scale) == 1.0
    assert sae.b_dec.tolist() == [7.0, 7.0]


def test_codes_and_reconstruction_are_in_the_units_of_the_model(recipe: Recipe, rows: Tensor):
    sae = _sae(recipe, rows)
    f = sae.encode(rows.view(64, 8, D_MODEL))
    assert f.shape == (64, 8, 64)
    assert bool((f >= 0).all())
    assert int((f > 0).sum(-1).max()) == recipe.k
    origin = sae.decode(torch.zeros(64))
    torch.testing.assert_close(sae.decode(f), origin + f @ sae.directions, rtol=1e-4, atol=1e-3)
    values, indices = sae.sparse_codes(rows)
    torch.testing.assert_close(f.view(512, 64), torch.zeros(512, 64).scatter(1, indices, values))
    torch.testing.assert_close(sae.decode_sparse(values, indices), sae.decode(f).view(512, D_MODEL))


def test_codes_pass_gradients_on(recipe: Recipe, rows: Tensor):
    sae = _sae(recipe, rows)
    x = rows[:1].clone().requires_grad_()
    f = sae.encode(x)
    feature = int(f.argmax())
    (gradient,) = torch.autograd.grad(f[0, feature], x)
    torch.testing.assert_close(gradient[0], sae.W_enc[:, feature].detach() * sae.scale)


def test_features_start_tied_with_unit_rows_and_follow_from_the_seed():
    a, b, c = TopK(8, 32, 2, seed=1), TopK(8, 32, 2, seed=1), TopK(8, 32, 2, seed=2)
    assert torch.equal(a.W_enc, a.W_dec.T)
    torch.testing.assert_close(a.W_dec.norm(dim=1), torch.ones(32))
    assert torch.equal(a.W_dec, b.W_dec)
    assert not torch.equal(a.W_dec, c.W_dec)


def test_rows_since_a_feature_fired_are_counted(recipe: Recipe, rows: Tensor):
    sae = _sae(recipe, rows)
    with torch.no_grad():
        sae.b_enc[3] = -1e6
        sae.b_enc[4] = 1e6
    for _ in range(2):
        sae.step(rows, 0.5)
    assert int(sae.rows_since_fired[3]) == 1024
    assert int(sae.rows_since_fired[4]) == 0


def test_dead_features_come_back_to_explain_what_is_missing(recipe: Recipe, rows: Tensor):
    # 24 directions, two in a row; half of 32 features can no longer win, since their pre-codes are a hundredth
    results = {}
    for coefficient in (0.0, 1 / 32):
        sae = TopK(D_MODEL, 32, 2, recipe=replace(recipe, hidden_dim=32, k=2, aux_coefficient=coefficient))
        sae.fit_units(rows)
        with torch.no_grad():
            sae.W_enc_rows[:16] *= 0.01
        sae.rows_since_fired[:16] = recipe.dead_after_rows
        optimizer = torch.optim.Adam(sae.parameters(), lr=recipe.lr)
        for _ in range(200):
            optimizer.zero_grad()
            sae.step(rows, 0.5).loss.backward()
            optimizer.step()
            sae.after_update()
        fired = int((sae.rows_since_fired == 0).sum())
        results[coefficient] = fired, float(sae.step(rows, 0.5).error.square().mean())
    assert results[0.0][0] <= 16
    assert results[1 / 32][0] > 24
    assert results[1 / 32][1] < 0.5 * results[0.0][1]


@pytest.mark.parametrize(("d_sae", "k"), [(8, 9), (8, 0), (0, 0)])
def test_more_active_features_than_there_are_is_an_error(d_sae: int, k: int):
    with pytest.raises(InputError, match=rf"sae.k={k} must be from 1 to .*{d_sae}"):
        TopK(4, d_sae, k)
