"""Logistic regressions: the minimum is a minimum, and models that are fitted together do not see each other."""

from __future__ import annotations

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from refusal.sae.quality.logistic import PENALTY, fit, scores


def _data(n_groups: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n_groups, 4, 80, generator=generator)
    return x, (x[:, :1] + torch.randn(n_groups, 2, 80, generator=generator) > 0).float()


def _gradient(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    w = fit(x, y).requires_grad_()
    of_models = binary_cross_entropy_with_logits(scores(x, w), y, reduction="none").mean(2)
    (of_models.sum() + PENALTY / 2 * w[..., :-1].square().sum()).backward()
    assert w.grad is not None
    return w.grad


def test_the_gradient_of_the_penalised_loss_is_zero_at_the_weights():
    x, y = _data()
    assert float(_gradient(x, y).abs().max()) < 1e-3
    assert bool((fit(x, y)[..., 0] > 0.5).all())


def test_it_is_zero_too_for_classes_that_are_rare_and_far_from_all_others_in_more_dimensions_than_rows():
    x = torch.randn(1, 60, 40, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(1, 1, 40)
    y[..., :2] = 1
    x[:, :3, :2] += 20
    assert float(_gradient(x, y).abs().max()) < 1e-3


def test_models_fitted_together_are_those_fitted_alone():
    x, y = _data()
    together = fit(x, y)
    for i in range(len(x)):
        for j in range(y.shape[1]):
            alone = fit(x[i : i + 1], y[i : i + 1, j : j + 1])
            torch.testing.assert_close(together[i : i + 1, j : j + 1], alone, rtol=0.01, atol=0.01)


def test_models_of_a_group_are_those_of_groups_with_the_same_rows():
    x, y = _data()
    torch.testing.assert_close(fit(x[:1], y[:, 0][None])[0], fit(x[:1].expand(3, -1, -1), y[:, :1])[:, 0])


def test_a_column_that_never_varies_has_no_weight():
    x, y = _data()
    x[:, 2] = 0
    assert not bool(fit(x, y)[..., 2].any())
