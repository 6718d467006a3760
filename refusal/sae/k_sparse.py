"""Autoencoders with k active features a row, trained at the active pairs alone: what TopK and its kin share.

The loss is the squared error, and AuxK's: what is still missing is reconstructed by the strongest of the dead features,
so that they learn it. Of the dense products over all features only the encoder's is left (``kernels.reconstruction``).

Source: Makhzani and Frey, 2013, arXiv 1312.5663; Gao et al., 2024, arXiv 2406.04093, sections 2.3, 2.4, appendix A.
"""

from __future__ import annotations

import operator
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from refusal import InputError
from refusal.sae.base import SparseAutoencoder, Step
from refusal.sae.kernels.pairs import Pairs
from refusal.sae.kernels.products import centre, encode, largest, sum_by_row
from refusal.sae.kernels.reconstruction import Revival, Weights, reconstruction

LENGTH_ROWS = 512  # that the encoder's first length is taken from


class KSparse(SparseAutoencoder):
    """A sparse autoencoder with k active features a row; an architecture overrides ``activate`` and ``active_pairs``.

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
    ends: Tensor
    """Ends of the prefixes of the features that must each reconstruct; one, all of them, unless they are nested."""

    def __init__(
        self, d_model: int, d_sae: int, k: int, *, aux_k: int = 0, aux_coefficient: float = 0.0, **common: int
    ) -> None:
        super().__init__(d_model, d_sae, **common)
        if not 1 <= operator.index(k) <= d_sae:
            raise InputError(f"sae.k={k} must be from 1 to the number of features, sae.hidden_dim={d_sae}")
        self.k = k  # pyright: ignore[reportIncompatibleVariableOverride]  never None here
        self.aux_k, self.aux_coefficient = aux_k, aux_coefficient
        self.register_buffer("ends", torch.tensor([d_sae]), persistent=False)

    @torch.no_grad()
    def fit_units(self, x: Tensor) -> None:
        """Set scale and b_dec, and the encoder's length: that with which first reconstructions fit best.

        Encoder and decoder are tied at first, but k directions that overlap reconstruct too much.
        """
        super().fit_units(x)
        centred = centre(x[:LENGTH_ROWS].to(self.W_dec), self.scale, self.b_dec)
        pre = encode(centred, self.W_enc_rows, self.b_enc)
        columns = largest(pre, self.k)
        first = sum_by_row(pre.gather(1, columns).relu().flatten(), self.W_dec, Pairs.of(columns, self.d_sae))
        squares = first.square().sum()
        if squares > 0:
            self.W_enc_rows *= (centred * first).sum() / squares

    @abstractmethod
    def active_pairs(self, centred: Tensor) -> tuple[Tensor, Pairs]:
        """Return all pre-codes of a training batch, [batch, d_sae], and which features are active in it.

        Args:
            centred: Scaled rows minus b_dec, [batch, d_model].
        """

    def step(self, batch: Tensor, progress: float) -> Step:
        """Return the loss of a batch, with AuxK's."""
        with torch.no_grad():
            centred = centre(batch, self.scale, self.b_dec)
            pre, pairs = self.active_pairs(centred)

        def revive(values: Tensor) -> Revival | None:
            self.count_fired(len(batch), pairs.sum_by_feature(values) > 0)
            dead = self.is_dead.nonzero()[:, 0]
            return Revival(dead, self.aux_k, self.aux_coefficient) if self.aux_k and len(dead) else None

        weights = Weights(self.W_enc_rows, self.b_enc, self.W_dec, self.b_dec)
        loss, error, values = reconstruction(weights, centred, pre, pairs, self.ends, revive)
        return Step(loss, centred, error, values > 0)
