"""JumpReLU by hand: codes, loss, and the estimated derivatives by the thresholds."""

from __future__ import annotations

import math

import pytest
import torch

from refusal.sae.architectures.jumprelu import JumpReLU


def _by_hand() -> JumpReLU:
    """Two features, the axes of a plane; threshold 1 and bandwidth 0.5 in scaled units."""
    sae = JumpReLU(2, 2, l0_coefficient=0.1, bandwidth=0.5 / math.sqrt(2), threshold=1 / math.sqrt(2))
    with torch.no_grad():
        for weights in (sae.W_enc_rows, sae.W_dec):
            weights.copy_(torch.eye(2))
    return sae


def test_what_is_over_its_threshold_keeps_all_of_its_size():
    codes = _by_hand().encode(torch.tensor([[1.2, 0.9], [5.0, -5.0]]))
    torch.testing.assert_close(codes, torch.tensor([[1.2, 0.0], [5.0, 0.0]]))


def test_the_loss_counts_active_features():
    step = _by_hand().step(torch.tensor([[1.2, 0.9], [5.0, 3.0]]), 0.0)
    # only 0.9 is lost; three features are active in two rows
    assert float(step.loss.detach()) == pytest.approx(0.81 / 4 + 0.1 * 1.5)


def test_thresholds_move_by_the_pre_codes_near_them():
    sae = _by_hand()
    sae.step(torch.tensor([[1.2, 0.9], [5.0, 3.0]]), 0.0).loss.backward()
    # within half a bandwidth, 0.25, of threshold 1: 1.2 of the first feature, 0.9 of the second; 5 and 3 are not.
    # The count: -0.1 / 2 rows / 0.5 for each. Codes: d loss / d f = -2 error / 4; the error is 0 at 1.2 and 0.9 at 0.9,
    # so the second has -(1 / 0.5) * (-2 * 0.9 / 4) besides; d threshold / d log threshold = 1
    assert sae.log_threshold.grad is not None
    torch.testing.assert_close(sae.log_threshold.grad, torch.tensor([-0.1, -0.1 + 0.9]))
    # the encoder learns from active codes alone, as if there were no threshold: errors there are 0
    assert sae.W_enc_rows.grad is not None
    torch.testing.assert_close(sae.W_enc_rows.grad, torch.zeros(2, 2))


def test_units_of_bandwidth_and_threshold_are_rows_of_variance_one():
    sae = JumpReLU(16, 4, bandwidth=0.01, threshold=0.02)
    assert sae.bandwidth == pytest.approx(0.04)
    torch.testing.assert_close(sae.threshold.detach(), torch.full((4,), 0.08))
