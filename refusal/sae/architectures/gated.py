"""Gated: one path decides whether a feature is active, another how much, so that the penalty does not shrink codes.

    gate       p = (z - b_dec) W_enc + b_enc;  a feature is active where p > 0
    magnitude  m = (z - b_dec) W_enc * exp(r_mag) + b_mag
    f          = max(m, 0) where p > 0, else 0
    loss       = mean of (z - z_hat)^2 + l1_coefficient / d_model * sum of max(p, 0)
                 + mean of (z - z_hat_gate)^2, with z_hat_gate = max(p, 0) W_dec + b_dec, the decoder held fixed

The gate has gradients from the last two terms only. Division by d_model as in ``relu``.

Source: Rajamanoharan et al., 2024, arXiv 2404.16014, section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from refusal.sae.base import SparseAutoencoder, Step, ramp


class Gated(SparseAutoencoder):
    """A gated sparse autoencoder.

    Args:
        d_model: Width of the activations.
        d_sae: Number of features.
        l1_coefficient: Weight of the penalty on the gate.
        warmup: Share of the training in which it rises from 0.
        common: ``seed`` and ``dead_after_rows``, see the base class.
    """

    def __init__(
        self, d_model: int, d_sae: int, *, l1_coefficient: float = 0.0, warmup: float = 0.0, **common: int
    ) -> None:
        super().__init__(d_model, d_sae, **common)
        self.l1_coefficient, self.warmup = l1_coefficient, warmup
        self.r_mag = nn.Parameter(torch.zeros(d_sae))
        self.b_mag = nn.Parameter(torch.zeros(d_sae))

    def activate(self, pre: Tensor) -> Tensor:
        """Return the magnitudes where the gate is open; ``pre`` are the gate's pre-codes."""
        magnitude = (pre - self.b_enc) * self.r_mag.exp() + self.b_mag
        return relu(magnitude) * (pre > 0)

    def step(self, batch: Tensor, progress: float) -> Step:
        """Return the squared error, the penalty, and the gate's own squared error."""
        x = batch * self.scale
        pre = self.pre_codes(x - self.b_dec)
        f, gate = self.activate(pre), relu(pre)
        error = x - (f @ self.W_dec + self.b_dec)
        error_of_gate = x - (gate @ self.W_dec.detach() + self.b_dec.detach())
        penalty = self.l1_coefficient * ramp(progress, self.warmup) * gate.sum(1).mean() / self.d_model
        is_active = f.detach() > 0
        self.count_fired(len(x), is_active.any(0))
        loss = error.square().mean() + penalty + error_of_gate.square().mean()
        return Step(loss, x, error.detach(), is_active)
