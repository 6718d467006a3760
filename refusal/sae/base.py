"""The autoencoder that every variant shares: weights, units, the losses of a batch, dead features.

In scaled units, z = scale * x, whose variance summed over dimensions is d_model:

    pre-codes        p = (z - b_dec) W_enc + b_enc                                  [batch, d_sae]
    codes            f = max(p, 0) at the features that ``select`` chooses, else 0   [batch, d_sae]
    reconstruction   z_hat = f W_dec + b_dec                                        [batch, d_model]
    loss             mean of (z - z_hat)^2 (about the fraction of variance unexplained)
                     + aux_coefficient * mean of (e - e_hat)^2

AuxK: e = z - z_hat is reconstructed, as e_hat, by the ``aux_k`` strongest of the features that have not fired for
``dead_after_rows`` rows, so that dead features learn what is still missing. Rows of W_dec have unit length: they
are divided by their norm after every step (the gradient is not projected: measured, it changes nothing under Adam).

Source: Gao et al., 2024, arXiv 2406.04093, sections 2.3, 2.4 and appendix A.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from refusal import InputError
from refusal.sae.kernels import Active, decode, largest, pre_codes_at, sum_by_row
from refusal.sae.ranks import agree_on_idle
from refusal.sae.recipe import Recipe


class Step(NamedTuple):
    """What a training step computed, in scaled units."""

    loss: Tensor
    x: Tensor
    """[batch, d_model]"""
    error: Tensor
    """x - x_hat without its graph, [batch, d_model]"""
    is_active: Tensor
    """Which of the chosen features have a positive code, bool [batch, n]."""


class SparseAutoencoder(nn.Module):
    """A sparse autoencoder; a variant overrides ``select``.

    Args:
        d_model: Width of the activations.
        d_sae: Number of features.
        k: Active features of a row.
        seed: What the first weights follow from.
        recipe: How to train it; not needed for one that is only used.

    Raises:
        InputError: k or d_sae is not a positive number, or k is over d_sae.
    """

    scale: Tensor
    rows_since_fired: Tensor

    def __init__(self, d_model: int, d_sae: int, k: int, *, seed: int = 0, recipe: Recipe | None = None) -> None:
        super().__init__()
        if not 1 <= k <= d_sae:
            raise InputError(f"sae.k={k} must be from 1 to the number of features, sae.hidden_dim={d_sae}")
        self.d_model, self.d_sae, self.k, self.recipe = d_model, d_sae, k, recipe
        directions = torch.randn(d_sae, d_model, generator=torch.Generator().manual_seed(seed))
        self.W_dec = nn.Parameter(functional.normalize(directions, dim=1))
        self.W_enc_rows = nn.Parameter(self.W_dec.detach().clone())  # tied at first; [d_sae, d_model], see kernels
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.b_dec = nn.Parameter(torch.zeros(d_model))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("rows_since_fired", torch.zeros(d_sae, dtype=torch.int64))

    def select(self, pre: Tensor) -> Tensor:
        """Choose the features that may be active, given all pre-codes: [batch, d_sae] -> indices [batch, n]."""
        raise NotImplementedError

    @property
    def W_enc(self) -> Tensor:
        """The encoder, [d_model, d_sae]."""
        return self.W_enc_rows.T

    @property
    def directions(self) -> Tensor:
        """What one unit of each feature adds to x, in the model's units: [d_sae, d_model]."""
        return self.W_dec / self.scale

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes [..., d_sae] of activations [..., d_model] in the model's units; differentiable."""
        pre = self._pre_codes((x * self.scale - self.b_dec).reshape(-1, self.d_model))
        indices = self.select(pre.detach())
        f = torch.zeros_like(pre).scatter(1, indices, functional.relu(pre.gather(1, indices)))
        return f.view(*x.shape[:-1], self.d_sae)

    def decode(self, f: Tensor) -> Tensor:
        """Return the reconstruction [..., d_model], in the model's units, of codes [..., d_sae]; differentiable."""
        return (f @ self.W_dec + self.b_dec) / self.scale

    @torch.no_grad()
    def sparse_codes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the active codes of rows [batch, d_model]: values and features, both [batch, n]; no gradient."""
        pre = self._pre_codes(x * self.scale - self.b_dec)
        indices = self.select(pre)
        return functional.relu(pre.gather(1, indices)), indices

    @torch.no_grad()
    def decode_sparse(self, values: Tensor, indices: Tensor) -> Tensor:
        """Return the reconstruction [batch, d_model] of what ``sparse_codes`` gave."""
        return (sum_by_row(values, self.W_dec, indices) + self.b_dec) / self.scale

    @torch.no_grad()
    def fit_units(self, x: Tensor) -> None:
        """Set scale and b_dec by sample rows [n, d_model]: variance d_model in scaled units, b_dec at the mean."""
        x = x.to(self.W_dec)
        mean = x.mean(0)
        variance = (x - mean).square().sum(1).mean()
        self.scale.fill_((self.d_model / variance).sqrt() if variance > 0 else 1.0)
        self.b_dec.copy_(mean * self.scale)

    @property
    def is_dead(self) -> Tensor:
        """Which features have not fired for so many rows that they count as dead, bool [d_sae]."""
        return self.rows_since_fired >= self._recipe.dead_after_rows

    def step(self, batch: Tensor, progress: float) -> Step:
        """Return the loss of a batch, and count for how long each feature has not fired.

        Args:
            batch: Rows in the model's units, [batch, d_model]; of several processes, this one's part of the batch.
            progress: The share of the training that is done, from 0 to 1, for losses that change as it goes on.
        """
        x = batch * self.scale
        with torch.no_grad():
            centred = x - self.b_dec
            pre = self._pre_codes(centred)
            active = Active(self.select(pre), self.d_sae)
        values = self._codes_at(pre, centred, active)
        error = x - (decode(values, self.W_dec, active) + self.b_dec)
        is_active = values.detach() > 0
        self.rows_since_fired += len(x)
        self.rows_since_fired[active.indices[is_active]] = 0
        agree_on_idle(self.rows_since_fired, len(x))
        loss = error.square().mean() + self._auxiliary_loss(pre, centred, error.detach())
        return Step(loss, x, error.detach(), is_active)

    @torch.no_grad()
    def after_update(self) -> None:
        """Bring the decoder's rows back to unit length; called after every step of the optimiser."""
        functional.normalize(self.W_dec, dim=1, out=self.W_dec)

    @property
    def _recipe(self) -> Recipe:
        if self.recipe is None:
            raise RuntimeError("this autoencoder was made without a recipe, so it cannot be trained")
        return self.recipe

    def _pre_codes(self, centred: Tensor) -> Tensor:
        return torch.addmm(self.b_enc, centred, self.W_enc)

    def _codes_at(self, pre: Tensor, centred: Tensor, active: Active) -> Tensor:
        return functional.relu(pre_codes_at(pre, centred, self.W_enc_rows, self.b_enc, self.b_dec, active))

    def _auxiliary_loss(self, pre: Tensor, centred: Tensor, error: Tensor) -> Tensor | float:
        """AuxK: how badly the strongest dead features reconstruct the error [batch, d_model]."""
        recipe = self._recipe
        dead = self.is_dead.nonzero()[:, 0]
        n = min(recipe.aux_k, len(dead))
        if n == 0:
            return 0.0
        active = Active(dead[largest(pre.index_select(1, dead), n)], self.d_sae)
        error_hat = decode(self._codes_at(pre, centred, active), self.W_dec, active)
        return recipe.aux_coefficient * (error - error_hat).square().mean()
