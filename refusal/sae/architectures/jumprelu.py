"""JumpReLU: each feature has its own threshold, learnt together with the weights; the penalty counts active features.

    f    = p where p > threshold, else 0
    loss = mean of (z - z_hat)^2 + l0_coefficient * number of active features

Neither the jump nor the count has a useful derivative by the threshold, so one is estimated from the pre-codes near it,
by a rectangle K of width ``bandwidth`` and area 1:

    d f / d threshold                = -threshold * K(p - threshold)
    d [p > threshold] / d threshold  = -K(p - threshold)

By p, the derivative of f is 1 where it is active and 0 elsewhere, and that of the count is 0. Thresholds are positive:
their logarithms are what is learnt. Widths and thresholds are given for rows of variance 1, as in the source; in
scaled units they are sqrt(d_model) times as large.

Source: Rajamanoharan et al., 2024, arXiv 2407.14435, sections 2 and 3, and the code in its appendix.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import relu

from refusal.sae.base import SparseAutoencoder, Step, ramp


class JumpReLU(SparseAutoencoder):
    """A sparse autoencoder with a threshold for each feature.

    Args:
        d_model: Width of the activations.
        d_sae: Number of features.
        l0_coefficient: Weight of the number of active features in the loss.
        warmup: Share of the training in which it rises from 0.
        bandwidth: Width of the estimate of derivatives.
        threshold: The first threshold of all features.
        common: ``seed`` and ``dead_after_rows``, see the base class.
    """

    def __init__(
        self,
        d_model: int,
        d_sae: int,
        *,
        l0_coefficient: float = 0.0,
        warmup: float = 0.0,
        bandwidth: float = 0.001,
        threshold: float = 0.001,
        **common: int,
    ) -> None:
        super().__init__(d_model, d_sae, **common)
        self.l0_coefficient, self.warmup = l0_coefficient, warmup
        self.bandwidth = bandwidth * math.sqrt(d_model)
        self.log_threshold = nn.Parameter(torch.full((d_sae,), math.log(threshold * math.sqrt(d_model))))

    @property
    def threshold(self) -> Tensor:
        """What pre-codes must exceed, in scaled units, [d_sae]."""
        return self.log_threshold.exp()

    def activate(self, pre: Tensor) -> Tensor:
        """Keep what is over its feature's threshold."""
        return _Jump.apply(relu(pre), self.threshold, self.bandwidth)  # type: ignore[return-value]

    def step(self, batch: Tensor, progress: float) -> Step:
        """Return the squared error and the penalty."""
        x = batch * self.scale
        pre = relu(self.pre_codes(x - self.b_dec))
        threshold = self.threshold
        f: Tensor = _Jump.apply(pre, threshold, self.bandwidth)  # type: ignore[assignment]
        l0: Tensor = _Count.apply(pre, threshold, self.bandwidth)  # type: ignore[assignment]
        error = x - (f @ self.W_dec + self.b_dec)
        penalty = self.l0_coefficient * ramp(progress, self.warmup) * l0 / len(x)
        is_active = f.detach() > 0
        self.count_fired(len(x), is_active.any(0))
        return Step(error.square().mean() + penalty, x, error.detach(), is_active)


class _Jump(torch.autograd.Function):
    """The codes, [batch, d_sae]."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return pre * (pre > threshold)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (pre, threshold), (grad,) = ctx.saved_tensors, grad_outputs
        near = _near(pre, threshold, ctx.bandwidth)
        return grad * (pre > threshold), -threshold / ctx.bandwidth * (grad * near).sum(0), None


class _Count(torch.autograd.Function):
    """How many codes are active, []."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).sum().to(threshold)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        pre, threshold = ctx.saved_tensors
        return None, -grad_outputs[0] / ctx.bandwidth * _near(pre, threshold, ctx.bandwidth).sum(0), None


def _near(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """Whether pre-codes are within half a bandwidth of the threshold, bool [batch, d_sae]."""
    return (pre - threshold).abs() < bandwidth / 2
