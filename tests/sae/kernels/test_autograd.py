"""Encoding and decoding at the active pairs against dense products."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from refusal.sae.kernels.autograd import decode, gather_codes
from refusal.sae.kernels.pairs import Pairs
from tests.sae import dense


def _sparse(x: Tensor, weights: list[Tensor], pairs: Pairs) -> Tensor:
    W_rows, b_enc, W_dec, b_dec = weights
    with torch.no_grad():
        centred = x - b_dec
        pre = centred @ W_rows.T + b_enc
    return decode(gather_codes(pre, centred, W_rows, b_enc, b_dec, pairs), W_dec, pairs) + b_dec


def _weights(d_model: int, d_sae: int, rng: torch.Generator, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    shapes = ((d_sae, d_model), (d_sae,), (d_sae, d_model), (d_model,))
    return [torch.randn(shape, generator=rng, dtype=dtype) / d_model**0.5 for shape in shapes]


def _some_pairs(n_rows: int, d_sae: int, share: float, rng: torch.Generator) -> Pairs:
    """Pairs at random, not only the largest pre-codes: some codes are cut at 0, some rows and features have none."""
    rows, features = (torch.rand(n_rows, d_sae, generator=rng) < share).nonzero().unbind(1)
    return Pairs(rows, features, n_rows, d_sae)


@settings(max_examples=50, deadline=None)
@given(
    n_rows=st.integers(1, 40),
    d_model=st.integers(1, 33),
    d_sae=st.integers(1, 80),
    share=st.sampled_from([0.0, 0.02, 0.2, 1.0]),
    seed=st.integers(0, 99),
)
def test_reconstruction_and_gradients_equal_the_dense_ones(
    n_rows: int, d_model: int, d_sae: int, share: float, seed: int
):
    rng = torch.Generator().manual_seed(seed)
    x, target = (torch.randn(n_rows, d_model, generator=rng) for _ in range(2))
    first = _weights(d_model, d_sae, rng)
    pairs = _some_pairs(n_rows, d_sae, share, rng)
    results = []
    for compute in (dense.reconstruct, _sparse):
        weights = [value.clone().requires_grad_() for value in first]
        x_hat = compute(x, weights, pairs)
        (x_hat - target).square().mean().backward()
        results.append([x_hat.detach(), *(value.grad for value in weights)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_gradients_agree_with_finite_differences():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, generator=rng, dtype=torch.float64)
    weights = [value.requires_grad_() for value in _weights(3, 7, rng, torch.float64)]
    pairs = _some_pairs(5, 7, 0.4, rng)
    assert 0 < len(pairs) < 35

    def reconstruction(*weights: Tensor) -> Tensor:
        return _sparse(x, list(weights), pairs)

    assert torch.autograd.gradcheck(reconstruction, weights)


def test_equal_inputs_give_equal_bits():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(64, 32, generator=rng)
    first = _weights(32, 256, rng)
    chosen = torch.rand(64, 256, generator=rng).topk(9).indices
    grads = []
    for _ in range(2):
        weights = [value.clone().requires_grad_() for value in first]
        _sparse(x, weights, Pairs.of(chosen, 256)).square().sum().backward()
        grads.append([value.grad for value in weights])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True) if a is not None and b is not None)
