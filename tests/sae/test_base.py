"""Units, use, and the count of rows in which a feature has not fired."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from refusal import InputError
from refusal.sae.architectures.topk import TopK
from refusal.sae.base import ramp
from tests.sae.conftest import D_MODEL


@pytest.fixture
def sae(rows: Tensor) -> TopK:
    """One away from the start, where encoder and decoder are tied and biases are zero."""
    sae = TopK(D_MODEL, 64, 3, dead_after_rows=1000)
    sae.fit_units(rows)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5))
        sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
    return sae


def test_units_are_those_of_the_rows():
    # mean and geometric median (3, 0), |x - mean|^2 = 4 on average: with d_model = 2 the scale is sqrt(2 / 4)
    x = torch.tensor([[5.0, 0.0], [1.0, 0.0], [3.0, 2.0], [3.0, -2.0]])
    sae = TopK(2, 4, 1)
    sae.fit_units(x)
    assert float(sae.scale) == pytest.approx(0.5**0.5)
    assert sae.b_dec.tolist() == pytest.approx([3.0 * 0.5**0.5, 0.0])
    sae.fit_units(torch.full((3, 2), 7.0))  # a site where nothing happens
    assert float(sae.scale) == 1.0
    assert sae.b_dec.tolist() == [7.0, 7.0]


def test_one_far_row_moves_the_scale_and_not_the_origin():
    x = torch.randn(999, 4, generator=torch.Generator().manual_seed(0))
    sae = TopK(4, 8, 1)
    sae.fit_units(torch.cat([x, torch.full((1, 4), 1e4)]))
    assert float(sae.scale) == pytest.approx(1e-4 * 1000**0.5, rel=0.01)  # variance 4e8 / 1000
    assert float((sae.b_dec / sae.scale).detach().norm()) < 0.2  # the mean is at (10, 10, 10, 10)


def test_codes_and_reconstruction_are_in_the_units_of_the_model(sae: TopK, rows: Tensor):
    f = sae.encode(rows.view(64, 8, D_MODEL))
    assert f.shape == (64, 8, 64)
    assert bool((f >= 0).all())
    assert int((f > 0).sum(-1).max()) == 3
    origin = sae.decode(torch.zeros(64))
    torch.testing.assert_close(sae.decode(f), origin + f @ sae.directions, rtol=1e-4, atol=1e-3)
    values, indices = sae.sparse_codes(rows)
    torch.testing.assert_close(f.view(512, 64), torch.zeros(512, 64).scatter(1, indices, values))
    torch.testing.assert_close(sae.decode_sparse(values, indices), sae.decode(f).view(512, D_MODEL))


def test_codes_pass_gradients_on(sae: TopK, rows: Tensor):
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


def test_rows_since_a_feature_fired_are_counted(sae: TopK, rows: Tensor):
    with torch.no_grad():
        sae.b_enc[3] = -1e6
        sae.b_enc[4] = 1e6
    for _ in range(2):
        sae.step(rows, 0.5)
    assert int(sae.rows_since_fired[3]) == 1024
    assert int(sae.rows_since_fired[4]) == 0
    assert bool(sae.is_dead[3])  # after 1,000 rows
    assert not bool(sae.is_dead[4])


def test_a_coefficient_may_rise_at_first():
    assert [ramp(progress, 0.2) for progress in (0, 0.1, 0.2, 0.9)] == [0.0, 0.5, 1.0, 1.0]
    assert ramp(0.0, 0.0) == 1.0


def test_an_autoencoder_has_features():
    with pytest.raises(InputError, match=r"sae.hidden_dim=0 is not a positive number"):
        TopK(4, 0, 0)
