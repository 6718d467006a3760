"""Gated by hand, and which parts of the loss reach which weights."""

from __future__ import annotations

import math

import pytest
import torch

from refusal.sae.architectures.gated import Gated


def _by_hand() -> Gated:
    sae = Gated(2, 2, l1_coefficient=4.0)
    with torch.no_grad():
        for weights in (sae.W_enc_rows, sae.W_dec):
            weights.copy_(torch.eye(2))
        sae.b_enc.copy_(torch.tensor([-1.0, 0.0]))
        sae.r_mag.copy_(torch.tensor([math.log(2.0), 0.0]))
        sae.b_mag.copy_(torch.tensor([0.0, -3.0]))
    return sae


def test_one_path_opens_and_the_other_measures():
    # gates (2, 2) and (-0.5, 1); magnitudes (6, -1) and (1, -2): the second feature is open and has no size
    x = torch.tensor([[3.0, 2.0], [0.5, 1.0]])
    torch.testing.assert_close(_by_hand().encode(x), torch.tensor([[6.0, 0.0], [0.0, 0.0]]))


def test_the_three_parts_of_the_loss():
    step = _by_hand().step(torch.tensor([[3.0, 2.0], [0.5, 1.0]]), 0.0)
    # errors (-3, 2) and (0.5, 1); of the gate's own reconstruction (2, 2) and (0, 1): (1, 0) and (0.5, 0)
    torch.testing.assert_close(step.error, torch.tensor([[-3.0, 2.0], [0.5, 1.0]]))
    squared, own = (9 + 4 + 0.25 + 1) / 4, (1 + 0.25) / 4
    penalty = 4.0 * (2 + 2 + 0 + 1) / 2 / 2  # mean over two rows, divided by d_model
    assert float(step.loss.detach()) == pytest.approx(squared + penalty + own)
    assert step.is_active.tolist() == [[True, False], [False, False]]


def test_the_gate_s_own_error_does_not_move_the_decoder():
    sae, rows = Gated(4, 8, l1_coefficient=1.0), torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    loss = sae.step(rows, 1.0).loss
    f = sae.encode(rows)
    (expected,) = torch.autograd.grad((rows - sae.decode(f)).square().mean(), sae.W_dec)
    (found,) = torch.autograd.grad(loss, sae.W_dec, retain_graph=True)
    torch.testing.assert_close(found, expected)
    (d_gate,) = torch.autograd.grad(loss, sae.b_enc)
    assert float(d_gate.abs().max()) > 0  # though whether a feature is open has no derivative
