"""Adam in one pass over the weights against torch's."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from refusal.sae.kernels.adam import Adam


def _weights(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(*shape, generator=generator).to(dtype)) for shape in ((7, 5), (9,), (3, 4))]


def _grads(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for shape in ((7, 5), (9,), (3, 4))]


def _train(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], steps: range) -> None:
    for seed in steps:
        for weight, grad in zip(weights, _grads(seed), strict=True):
            weight.grad = grad.to(weight)
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["compiled", "torch"])
def test_it_is_torch_s(dtype: torch.dtype):
    ours, theirs = _weights(dtype), _weights()
    _train(Adam([{"params": ours}], lr=0.1, eps=1e-6), ours, range(5))
    _train(torch.optim.Adam(theirs, lr=0.1, eps=1e-6), theirs, range(5))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.detach().float(), other.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["compiled", "torch"])
def test_unit_rows_get_unit_length_and_zeros_stay(dtype: torch.dtype):
    free, unit = _weights(dtype), _weights(dtype)
    with torch.no_grad():
        free[0][1] = unit[0][1] = 0.0
    optimizers = [
        Adam([{"params": free}], lr=0.1),
        Adam([{"params": unit[:1], "unit_rows": True}, {"params": unit[1:]}], lr=0.1),
    ]
    for weights, optimizer in zip((free, unit), optimizers, strict=True):
        grads = _grads(0)
        grads[0][1] = 0.0
        for weight, grad in zip(weights, grads, strict=True):
            weight.grad = grad.to(weight)
        optimizer.step()
    torch.testing.assert_close(unit[0], nn.functional.normalize(free[0], dim=1))
    assert not unit[0][1].any()
    assert torch.equal(unit[2], free[2])


def test_its_state_goes_on_in_another_and_in_torch_s():
    straight, weights = _weights(), _weights()
    _train(Adam([{"params": straight}], lr=0.1), straight, range(6))
    first = Adam([{"params": weights}], lr=0.1)
    _train(first, weights, range(3))
    for kind in (Adam, torch.optim.Adam):
        copies = [nn.Parameter(weight.detach().clone()) for weight in weights]
        second = kind([{"params": copies}], lr=0.1)
        second.load_state_dict(deepcopy(first.state_dict()))
        _train(second, copies, range(3, 6))
        for one, other in zip(copies, straight, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_what_has_no_gradient_stays_and_the_closure_s_loss_comes_back():
    weight, other = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))

    def closure() -> Tensor:
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert float(Adam([{"params": [weight, other]}], lr=0.1).step(closure).detach()) == 4.0
    assert torch.equal(other, torch.ones(2))
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), 0.9))


def test_gradients_are_let_go():
    weights = _weights()
    optimizer = Adam([{"params": weights[:1], "unit_rows": True}, {"params": weights[1:]}], lr=0.1)
    _train(optimizer, weights, range(1))
    optimizer.zero_grad()
    assert [weight.grad for weight in weights] == [None, None, None]


def test_weights_that_are_not_contiguous_are_updated_in_place():
    weight = nn.Parameter(torch.ones(2, 3).T)
    weight.grad = torch.ones(3, 2)
    Adam([{"params": [weight]}], lr=0.1).step()
    torch.testing.assert_close(weight.detach(), torch.full((3, 2), 0.9))
