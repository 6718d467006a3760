"""The loss of the active pairs and its gradients against dense products."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from refusal.sae.kernels.pairs import Pairs
from refusal.sae.kernels.reconstruction import Reconstruction, Revival, Weights, reconstruction
from tests.sae import dense


def sparse(z: Tensor, weights: Weights, pairs: Pairs, ends: Sequence[int], revival: Revival | None) -> Reconstruction:
    with torch.no_grad():
        centred = z - weights.b_dec
        pre = centred @ weights.W_enc_rows.T + weights.b_enc
    return reconstruction(weights, centred, pre, pairs, torch.tensor(ends), lambda values: revival)


def some_weights(d_model: int, d_sae: int, rng: torch.Generator, dtype: torch.dtype = torch.float32) -> Weights:
    shapes = ((d_sae, d_model), (d_sae,), (d_sae, d_model), (d_model,))
    return Weights(*(torch.randn(shape, generator=rng, dtype=dtype) / d_model**0.5 for shape in shapes))


def some_pairs(n_rows: int, d_sae: int, share: float, rng: torch.Generator) -> Pairs:
    """Pairs at random, not only the largest pre-codes: some codes are cut at 0, some rows and features have none."""
    rows, features = (torch.rand(n_rows, d_sae, generator=rng) < share).nonzero().unbind(1)
    return Pairs.of_rows(rows, features, n_rows, d_sae)


def with_gradients(weights: Weights) -> Weights:
    return Weights(*(value.clone().requires_grad_() for value in weights))


@settings(max_examples=60)
@given(
    n_rows=st.integers(1, 40),
    d_model=st.integers(1, 33),
    d_sae=st.integers(1, 80),
    share=st.sampled_from([0.0, 0.02, 0.2, 1.0]),
    cuts=st.sets(st.floats(0, 1), max_size=3),
    dead_share=st.sampled_from([0.0, 0.1, 0.9]),
    aux_k=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_loss_and_gradients_equal_the_dense_ones(
    n_rows: int, d_model: int, d_sae: int, share: float, cuts: set[float], dead_share: float, aux_k: int, seed: int
):
    rng = torch.Generator().manual_seed(seed)
    z, first = torch.randn(n_rows, d_model, generator=rng), some_weights(d_model, d_sae, rng)
    pairs = some_pairs(n_rows, d_sae, share, rng)
    ends = sorted({round(cut * d_sae) for cut in cuts} - {0} | {d_sae})
    dead = (torch.rand(d_sae, generator=rng) < dead_share).nonzero()[:, 0]
    revival = Revival(dead, aux_k, 0.3) if len(dead) else None
    results = []
    for compute in (dense.loss, sparse):
        weights = with_gradients(first)
        loss = compute(z, weights, pairs, ends, revival).loss
        (2 * loss).backward()
        results.append([loss.detach(), *(value.grad for value in weights)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_gradients_agree_with_finite_differences():
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(5, 3, generator=rng, dtype=torch.float64)
    weights = with_gradients(some_weights(3, 7, rng, torch.float64))
    pairs = some_pairs(5, 7, 0.4, rng)
    assert 0 < len(pairs) < 35

    def loss(*values: Tensor) -> Tensor:
        return sparse(z, Weights(*values), pairs, (2, 7), None).loss

    assert torch.autograd.gradcheck(loss, tuple(weights))


def test_equal_inputs_give_equal_bits():
    rng = torch.Generator().manual_seed(0)
    z, first = torch.randn(64, 32, generator=rng), some_weights(32, 256, rng)
    pairs = Pairs.of(torch.rand(64, 256, generator=rng).topk(9).indices, 256)
    found = []
    for _ in range(2):
        weights = with_gradients(first)
        sparse(z, weights, pairs, (256,), Revival(torch.arange(90), 4, 1.0)).loss.backward()
        found.append([value.grad for value in weights])
    for a, b in zip(*found, strict=True):
        assert a is not None
        assert torch.equal(a, b)
