"""Logistic regressions: the minimum is a minimum, and models that are fitted together do not see each other."""

from __future__ import annotations

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from refusal.sae.quality.logistic import PENALTY, fit, scores


def _data(n_models: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n_models, 80, 4, generator=generator)
    return x, (x[:, :, 0] + torch.randn(n_models, 80, generator=generator) > 0).float()


def test_the_gradient_of_the_penalised_loss_is_zero_at_the_weights():
    x, y = _data()
    w = fit(x, y).requires_grad_()
    of_models = binary_cross_entropy_with_logits(scores(x, w), y, reduction="none").mean(1)
    (of_models.sum() + PENALTY / 2 * w[:, :-1].square().sum()).backward()
    assert w.grad is not None
    assert float(w.grad.abs().max()) < 1e-3
    assert bool((w[:, 0] > 0.5).all())


def test_models_fitted_together_are_those_fitted_alone():
    x, y = _data()
    together = fit(x, y)
    for i in range(len(x)):
        torch.testing.assert_close(together[i], fit(x[i : i + 1], y[i : i + 1])[0], rtol=0.02, atol=0.01)


def test_models_with_the_same_rows_share_them():
    x, y = _data()
    torch.testing.assert_close(fit(x[:1], y), fit(x[:1].expand(3, -1, -1), y))
