"""The training step of TopK and its kin against a dense one, and dead features."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from refusal import InputError
from refusal.sae.architectures.topk import TopK
from refusal.sae.kernels.adam import Adam
from tests.sae.conftest import D_MODEL

D_SAE, K, AUX_K, DEAD_AFTER = 64, 3, 8, 1000


def _sae(rows: Tensor) -> TopK:
    sae = TopK(D_MODEL, D_SAE, K, aux_k=AUX_K, aux_coefficient=0.5, dead_after_rows=DEAD_AFTER)
    sae.fit_units(rows)
    with torch.no_grad():  # away from the start, where encoder and decoder are tied and biases are zero
        for parameter in sae.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5))
    return sae


def _dense_loss(sae: TopK, batch: Tensor, dead: Tensor) -> Tensor:
    """Return the loss of ``KSparse.step``, every product dense."""
    x = batch * sae.scale
    pre = (x - sae.b_dec) @ sae.W_enc + sae.b_enc

    def chosen(scores: Tensor, n: int) -> Tensor:
        return torch.zeros_like(pre).scatter(1, scores.topk(n, dim=1).indices, 1.0)

    x_hat = torch.relu(pre * chosen(pre, K)) @ sae.W_dec + sae.b_dec
    loss = (x - x_hat).square().mean()
    if dead.any():
        scores = torch.where(dead, pre, -torch.inf)
        error_hat = torch.relu(pre * chosen(scores, min(AUX_K, int(dead.sum())))) @ sae.W_dec
        loss = loss + 0.5 * ((x - x_hat).detach() - error_hat).square().mean()
    return loss


@pytest.mark.parametrize("n_dead", [0, 5, 40])
def test_loss_and_gradients_are_those_of_a_dense_step(rows: Tensor, n_dead: int):
    dead = torch.arange(D_SAE) < n_dead
    gradients, losses = [], []
    for is_dense in (True, False):
        sae = _sae(rows)
        with torch.no_grad():
            sae.b_enc[dead] -= 100.0  # they never fire by themselves, ...
            sae.b_enc[:2] += 100.0 * bool(n_dead)  # ... but for two that come back in this very batch
        sae.rows_since_fired[dead] = DEAD_AFTER
        loss = _dense_loss(sae, rows, dead & (torch.arange(D_SAE) > 1)) if is_dense else sae.step(rows, 0.5).loss
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append([parameter.grad for parameter in sae.parameters()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for dense, sparse in zip(*gradients, strict=True):
        torch.testing.assert_close(sparse, dense, rtol=1e-5, atol=1e-5)


def test_dead_features_come_back_to_explain_what_is_missing(rows: Tensor):
    # 24 directions, two in a row; half of 32 features can no longer win, since their pre-codes are a hundredth
    results = {}
    for coefficient in (0.0, 1 / 32):
        sae = TopK(D_MODEL, 32, 2, aux_k=AUX_K, aux_coefficient=coefficient, dead_after_rows=DEAD_AFTER)
        sae.fit_units(rows)
        with torch.no_grad():
            sae.W_enc_rows[:16] *= 0.01
        sae.rows_since_fired[:16] = DEAD_AFTER
        optimizer = Adam(sae.parameter_groups(), lr=5e-3)
        for _ in range(200):
            optimizer.zero_grad()
            sae.step(rows, 0.5).loss.backward()
            optimizer.step()
        fired = int((sae.rows_since_fired == 0).sum())
        results[coefficient] = fired, float(sae.step(rows, 0.5).error.square().mean())
    assert results[0.0][0] <= 16
    assert results[1 / 32][0] > 24
    assert results[1 / 32][1] < 0.5 * results[0.0][1]


@pytest.mark.parametrize(("d_sae", "k"), [(8, 9), (8, 0)])
def test_more_active_features_than_there_are_is_an_error(d_sae: int, k: int):
    with pytest.raises(InputError, match=rf"sae.k={k} must be from 1 to .*{d_sae}"):
        TopK(4, d_sae, k)


def test_first_reconstructions_have_the_length_that_fits_best(rows: Tensor):
    sae = TopK(D_MODEL, D_SAE, K)
    sae.fit_units(rows)
    error = sae.step(rows, 0.0).error.square().sum()
    for factor in (0.95, 1.05):
        with torch.no_grad():
            sae.W_enc_rows *= factor
        assert sae.step(rows, 0.0).error.square().sum() > error
        with torch.no_grad():
            sae.W_enc_rows /= factor
