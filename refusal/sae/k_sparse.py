"""Autoencoders with k active features a row, trained at the active pairs alone: what TopK and its kin share.

    loss = mean of (z - z_hat)^2 + aux_coefficient * mean of (e - e_hat)^2

AuxK: e = z - z_hat is reconstructed, as e_hat, by the ``aux_k`` strongest of the dead features, so that they learn
what is still missing. Of the dense products only the encoder's is left (see ``kernels``).

Source: Makhzani and Frey, 2013, arXiv 1312.5663; Gao et al., 2024, arXiv 2406.04093, sections 2.3, 2.4, appendix A.
"""

from __future__ import annotations

import operator
from typing import ClassVar

import torch
from torch import Tensor

from refusal import InputError
from refusal.sae.base import SparseAutoencoder, Step
from refusal.sae.kernels.autograd import decode, gather_codes
from refusal.sae.kernels.pairs import Pairs
from refusal.sae.kernels.products import largest


class KSparse(SparseAutoencoder):
    """A sparse autoencoder with k active features a row; an architecture overrides ``activate`` and ``chosen_pairs``.

    Args:
        d_model: Width of the activations.
        d_sae: Number of features.
        k: Active features of a row.
        aux_k: Dead features that reconstruct the error.
        aux_coefficient: Weight of that in the loss.
        common: ``seed`` and ``dead_after_rows``, see the base class.

    Raises:
        InputError: k or d_sae is not a positive number, or k is over d_sae.
    """

    settings: ClassVar[tuple[str, ...]] = ("k",)
    k: int

    def __init__(
        self, d_model: int, d_sae: int, k: int, *, aux_k: int = 0, aux_coefficient: float = 0.0, **common: int
    ) -> None:
        super().__init__(d_model, d_sae, **common)
        if not 1 <= operator.index(k) <= d_sae:
            raise InputError(f"sae.k={k} must be from 1 to the number of features, sae.hidden_dim={d_sae}")
        self.k, self.aux_k, self.aux_coefficient = k, aux_k, aux_coefficient

    def chosen_pairs(self, pre: Tensor) -> Pairs:
        """Return which features are active in a training batch, given all pre-codes [batch, d_sae]."""
        raise NotImplementedError

    def reconstruction_loss(self, x: Tensor, values: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Return the loss of scaled rows [batch, d_model], and what their reconstruction misses, [batch, d_model]."""
        error = x - (decode(values, self.W_dec, pairs) + self.b_dec)
        return error.square().mean(), error

    def step(self, batch: Tensor, progress: float) -> Step:
        """Return the loss of a batch, with AuxK's."""
        x = batch * self.scale
        with torch.no_grad():
            centred = x - self.b_dec
            pre = self.pre_codes(centred)
            pairs = self.chosen_pairs(pre)
        values = self._codes(pre, centred, pairs)
        is_active = values.detach() > 0
        self.count_fired(len(x), pairs.features[is_active])
        loss, error = self.reconstruction_loss(x, values, pairs)
        error = error.detach()
        return Step(loss + self._auxiliary_loss(pre, centred, error), x, error, is_active)

    def _codes(self, pre: Tensor, centred: Tensor, pairs: Pairs) -> Tensor:
        return gather_codes(pre, centred, self.W_enc_rows, self.b_enc, self.b_dec, pairs)

    def _auxiliary_loss(self, pre: Tensor, centred: Tensor, error: Tensor) -> Tensor | float:
        """AuxK: how badly the strongest dead features reconstruct the error [batch, d_model]."""
        dead = self.is_dead.nonzero()[:, 0]
        n = min(self.aux_k, len(dead))
        if n == 0:
            return 0.0
        pairs = Pairs.of(dead[largest(pre.index_select(1, dead), n)], self.d_sae)
        error_hat = decode(self._codes(pre, centred, pairs), self.W_dec, pairs)
        return self.aux_coefficient * (error - error_hat).square().mean()
