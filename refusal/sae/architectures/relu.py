"""ReLU: what is positive is active, and an L1 penalty keeps that little.

    f    = max(p, 0)
    loss = mean of (z - z_hat)^2 + l1_coefficient / d_model * sum over i of f_i |W_dec[i]|

The penalty weighs codes by the length of their features' decoder rows, which is therefore free: a feature gains nothing
by a small code and a long row. The division by d_model is that of the squared error, so that coefficients mean
what they mean in the source; they rise over the first share ``warmup`` of the training.

Source: Bricken et al., 2023, Towards Monosemanticity; Conerly et al., 2024, Circuits Updates, April.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from refusal.sae.base import SparseAutoencoder, Step, ramp


class ReLU(SparseAutoencoder):
    """A sparse autoencoder with an L1 penalty.

    Args:
        d_model: Width of the activations.
        d_sae: Number of features.
        l1_coefficient: Weight of the penalty.
        warmup: Share of the training in which it rises from 0.
        common: ``seed`` and ``dead_after_rows``, see the base class.
    """

    has_unit_rows = False

    def __init__(
        self, d_model: int, d_sae: int, *, l1_coefficient: float = 0.0, warmup: float = 0.0, **common: int
    ) -> None:
        super().__init__(d_model, d_sae, **common)
        self.l1_coefficient, self.warmup = l1_coefficient, warmup

    def activate(self, pre: Tensor) -> Tensor:
        """Keep what is positive."""
        return functional.relu(pre)

    def step(self, batch: Tensor, progress: float) -> Step:
        """Return the squared error and the penalty."""
        x = batch * self.scale
        f = self.activate(self.pre_codes(x - self.b_dec))
        error = x - (f @ self.W_dec + self.b_dec)
        penalty = (f @ self.W_dec.norm(dim=1)).mean() / self.d_model
        loss = error.square().mean() + self.l1_coefficient * ramp(progress, self.warmup) * penalty
        is_active = f.detach() > 0
        self.count_fired(len(x), is_active.any(0))
        return Step(loss, x, error.detach(), is_active)
