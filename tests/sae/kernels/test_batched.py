"""The sparse products against dense matrix products, which multiply by every zero."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from refusal.sae.kernels import Active, decode, largest, pre_codes_at, sum_by_row


@pytest.mark.parametrize(("n", "k"), [(40, 40), (512, 8), (512, 4), (512, 1), (4096, 3), (4100, 3)])
def test_the_largest_are_those_of_a_full_sort(n: int, k: int):
    # 512 columns and k = 4 are the first that go through blocks (128 k); 4100 are no multiple of 16
    x = torch.randn(50, n, generator=torch.Generator().manual_seed(0))
    expected = x.sort(dim=1, descending=True).indices[:, :k]
    torch.testing.assert_close(largest(x, k).sort(dim=1).values, expected.sort(dim=1).values)


def test_the_largest_may_share_a_block():
    # columns 5, 5 + 32 and 5 + 64 of 512 lie in one block of 16 (n_blocks = 32)
    x = torch.zeros(1, 512)
    x[0, [5, 37, 69, 200]] = torch.tensor([4.0, 3.0, 2.0, 1.0])
    assert sorted(largest(x, 3)[0].tolist()) == [5, 37, 69]
    assert sorted(largest(x, 4)[0].tolist()) == [5, 37, 69, 200]


def test_a_worked_example():
    # row 0 has features 2 and 0, row 1 has features 2 and 1; of four features, 3 is active nowhere
    active = Active(torch.tensor([[2, 0], [2, 1]]), 4)
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    W_dec = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [9.0, 9.0]])
    # row 0: 1 * (1, 1) + 2 * (1, 0); row 1: 3 * (1, 1) + 4 * (0, 1)
    assert sum_by_row(values, W_dec, active.indices).tolist() == [[3.0, 1.0], [3.0, 7.0]]
    # in the order of the features: (0, row 0), (1, row 1), (2, row 0), (2, row 1)
    assert active.sort(values).tolist() == [2.0, 4.0, 1.0, 3.0]
    assert active.unsort(active.sort(values)).tolist() == values.tolist()
    table = torch.tensor([[1.0, 10.0], [2.0, 20.0]])
    # feature 2: 1 * (1, 10) + 3 * (2, 20)
    summed = active.sum_by_feature(table, active.sort(values))
    assert summed.tolist() == [[2.0, 20.0], [8.0, 80.0], [7.0, 70.0], [0.0, 0.0]]


def _dense(x: Tensor, weights: list[Tensor], indices: Tensor) -> Tensor:
    """Return the reconstruction, every product dense."""
    W_rows, b_enc, W_dec, b_dec = weights
    pre = (x - b_dec) @ W_rows.T + b_enc
    chosen = torch.zeros_like(pre).scatter(1, indices, 1.0)
    return torch.relu(pre * chosen) @ W_dec + b_dec


def _sparse(x: Tensor, weights: list[Tensor], indices: Tensor) -> Tensor:
    W_rows, b_enc, W_dec, b_dec = weights
    active = Active(indices, len(W_rows))
    with torch.no_grad():
        centred = x - b_dec
        pre = centred @ W_rows.T + b_enc
    values = torch.relu(pre_codes_at(pre, centred, W_rows, b_enc, b_dec, active))
    return decode(values, W_dec, active) + b_dec


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 40),
    d_model=st.integers(1, 33),
    d_sae=st.integers(1, 80),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_reconstruction_and_gradients_equal_the_dense_ones(
    batch: int, d_model: int, d_sae: int, share: float, seed: int
):
    rng = torch.Generator().manual_seed(seed)
    n = max(1, round(share * d_sae))
    x, target = (torch.randn(batch, d_model, generator=rng) for _ in range(2))
    shapes = ((d_sae, d_model), (d_sae,), (d_sae, d_model), (d_model,))
    first = [torch.randn(shape, generator=rng) / d_model**0.5 for shape in shapes]
    indices = torch.rand(batch, d_sae, generator=rng).topk(n).indices  # not only the largest: some codes are cut at 0
    results = []
    for compute in (_dense, _sparse):
        weights = [value.clone().requires_grad_() for value in first]
        x_hat = compute(x, weights, indices)
        (x_hat - target).square().mean().backward()
        results.append([x_hat.detach(), *(value.grad for value in weights)])
    for dense, sparse in zip(*results, strict=True):
        torch.testing.assert_close(sparse, dense, rtol=1e-5, atol=1e-5)


def test_gradients_agree_with_finite_differences():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, generator=rng, dtype=torch.float64)
    shapes = ((7, 3), (7,), (7, 3), (3,))
    weights = [torch.randn(s, generator=rng, dtype=torch.float64).requires_grad_() for s in shapes]
    indices = torch.rand(5, 7, generator=rng).topk(2).indices

    def reconstruction(*weights: Tensor) -> Tensor:
        return _sparse(x, list(weights), indices)

    assert torch.autograd.gradcheck(reconstruction, weights)


def test_equal_inputs_give_equal_bits():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(64, 32, generator=rng)
    first = [torch.randn(s, generator=rng) for s in ((256, 32), (256,), (256, 32), (32,))]
    indices = torch.rand(64, 256, generator=rng).topk(9).indices
    grads = []
    for _ in range(2):
        weights = [value.clone().requires_grad_() for value in first]
        _sparse(x, weights, indices).square().sum().backward()
        grads.append([value.grad for value in weights])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True) if a is not None and b is not None)
