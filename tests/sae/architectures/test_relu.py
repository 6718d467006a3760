"""ReLU by hand."""

from __future__ import annotations

import pytest
import torch

from refusal.sae.architectures.relu import ReLU
from refusal.sae.kernels.adam import Adam


def test_the_loss_weighs_codes_by_the_length_of_their_decoder_rows():
    sae = ReLU(2, 2, l1_coefficient=3.0, warmup=0.5)
    with torch.no_grad():
        sae.W_enc_rows.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        sae.W_dec.copy_(torch.tensor([[2.0, 0.0], [0.0, 0.5]]))
        sae.b_enc.copy_(torch.tensor([0.0, -1.0]))
    # codes (1, 3) and (0, 0); reconstructions (2, 1.5) and (0, 0); errors (-1, 2.5) and (-2, 1)
    step = sae.step(torch.tensor([[1.0, 4.0], [-2.0, 1.0]]), 1.0)
    assert step.error.tolist() == [[-1.0, 2.5], [-2.0, 1.0]]
    squared = (1 + 6.25 + 4 + 1) / 4
    penalty = (1 * 2 + 3 * 0.5) / 2 / 2  # mean over two rows, divided by d_model
    assert float(step.loss.detach()) == pytest.approx(squared + 3 * penalty)
    assert step.is_active.tolist() == [[True, True], [False, False]]
    half = sae.step(torch.tensor([[1.0, 4.0], [-2.0, 1.0]]), 0.25)
    assert float(half.loss.detach()) == pytest.approx(squared + 1.5 * penalty)


def test_a_longer_decoder_row_gains_nothing():
    sae, rows = ReLU(4, 8, l1_coefficient=1.0), torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    before = float(sae.step(rows, 1.0).loss.detach())
    with torch.no_grad():
        sae.W_dec.mul_(10)
        sae.W_enc_rows.div_(10)
    assert float(sae.step(rows, 1.0).loss.detach()) == pytest.approx(before, rel=1e-5)
    sae.step(rows, 1.0).loss.backward()
    Adam(sae.parameter_groups(), lr=0.0).step()
    assert float(sae.W_dec.detach().norm(dim=1).max()) == pytest.approx(10.0)
