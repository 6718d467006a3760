"""Matryoshka by hand: each prefix of the features reconstructs by itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from refusal import InputError
from refusal.sae.architectures.matryoshka import Matryoshka
from refusal.sae.kernels.adam import Adam


def _by_hand() -> tuple[Matryoshka, Tensor]:
    """Features are the axes of a plane, and their opposites; every row has both of its features active."""
    sae = Matryoshka(2, 4, 2, prefixes=[0.5, 1.0])
    with torch.no_grad():
        sae.W_dec.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
        sae.W_enc_rows.copy_(sae.W_dec)
    return sae, torch.tensor([[3.0, 2.0], [-1.0, 4.0]])


def test_the_loss_is_the_mean_over_prefixes():
    sae, rows = _by_hand()
    step = sae.step(rows, 0.0)
    # with features 0 and 1 the second coordinate is missing: (4 + 16) / 4; with all of them nothing is
    assert float(step.loss.detach()) == pytest.approx((5.0 + 0.0) / 2)
    assert step.error.abs().max() == 0
    assert int(step.is_active.sum()) == 4


def test_the_gradient_is_that_of_dense_nested_reconstructions():
    sae = Matryoshka(6, 16, 3, prefixes=[0.25, 0.5, 1.0])
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    sae.step(rows, 0.0).loss.backward()
    found = [parameter.grad.clone() for parameter in sae.parameters() if parameter.grad is not None]
    sae.zero_grad()
    pre = (rows - sae.b_dec) @ sae.W_enc + sae.b_enc
    mask = torch.zeros(40 * 16)
    mask[pre.flatten().topk(120).indices] = 1.0
    f = torch.relu(pre) * mask.view(40, 16)
    losses = [(rows - f[:, :m] @ sae.W_dec[:m] - sae.b_dec).square().mean() for m in (4, 8, 16)]
    torch.stack(losses).mean().backward()
    expected = [parameter.grad for parameter in sae.parameters()]
    assert len(found) == len(expected) == 4
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_the_first_features_reconstruct_more_than_as_many_of_batch_topk():
    rng = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(24, 16, generator=rng), dim=1)

    def rows(n: int) -> Tensor:
        return (torch.rand(n, 24, generator=rng) < 0.1).float() @ directions

    left = {}
    for prefixes in ([1.0], [0.125, 0.25, 1.0]):
        sae = Matryoshka(16, 64, 4, prefixes=prefixes)
        sae.fit_units(rows(1000))
        optimizer = Adam(sae.parameter_groups(), lr=5e-3)
        for step in range(200):
            sae.step(rows(256), step / 200).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        x = rows(1000)
        f = sae.encode(x)
        f[:, 8:] = 0
        left[len(prefixes)] = float((x - sae.decode(f)).square().sum().detach())
    assert left[3] < 0.7 * left[1]


@pytest.mark.parametrize("prefixes", [[0.5], [1.0, 0.5], [0.5, 0.5, 1.0], [0.0, 1.0], [0.5, 1.5], []])
def test_prefixes_ascend_to_all_features(prefixes: list[float]):
    with pytest.raises(InputError, match=r"sae.prefixes=.* must be shares of 16 features that ascend to 1"):
        Matryoshka(4, 16, 2, prefixes=prefixes)
