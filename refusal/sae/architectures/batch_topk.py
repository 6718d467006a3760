"""BatchTopK: the n * k largest pre-codes of n rows together are active, so a row has as many features as it needs.

In use, a row must not depend on its batch: a feature is active where its pre-code is over ``threshold``, the running
mean of the smallest positive code that was active in each training batch.

Source: Bussmann, Leask and Nanda, 2024, arXiv 2412.06410.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import relu

from refusal.sae.k_sparse import KSparse
from refusal.sae.kernels.pairs import Pairs
from refusal.sae.kernels.products import encode, largest
from refusal.sae.ranks import least, n_ranks, nth_largest, total

MOMENTUM = 0.95  # the mean of about the last 20 batches: what is the n * k largest of a batch varies little


class BatchTopK(KSparse):
    """A sparse autoencoder with k active features a row on average; its arguments are those of ``KSparse``."""

    threshold: Tensor
    """In scaled units, []; 0 before any training."""

    def __init__(self, d_model: int, d_sae: int, k: int, **options: Any) -> None:
        super().__init__(d_model, d_sae, k, **options)
        self.register_buffer("threshold", torch.zeros(()))

    def activate(self, pre: Tensor) -> Tensor:
        """Keep what is over the threshold."""
        return relu(pre) * (pre > self.threshold)

    def active_pairs(self, centred: Tensor) -> tuple[Tensor, Pairs]:
        """Return the pre-codes, and the pairs of the largest of the whole batch."""
        pre = encode(centred, self.W_enc_rows, self.b_enc)
        return pre, self.chosen_pairs(pre)

    def chosen_pairs(self, pre: Tensor) -> Pairs:
        """Return the pairs of the largest pre-codes of the whole batch, and let the threshold follow them."""
        n_rows, flat = len(pre), pre.view(-1)
        n = self.k * int(total(torch.tensor(n_rows, device=pre.device)))
        places = largest(pre.view(1, -1), min(n, len(flat)))[0].sort().values
        if n_ranks() > 1:  # of these, those that are among the n largest of all processes together
            places = places[flat[places] >= nth_largest(flat[places], n)]
        self._follow(flat[places])
        return Pairs.of_rows(places // self.d_sae, places % self.d_sae, n_rows, self.d_sae)

    def _follow(self, chosen: Tensor) -> None:
        """Move the threshold towards the smallest positive one of the chosen pre-codes."""
        smallest = least(
            torch.where(chosen > 0, chosen, torch.inf).amin() if len(chosen) else self.threshold + torch.inf
        )
        if smallest.isfinite():
            first = self.threshold == 0
            self.threshold.lerp_(smallest.to(self.threshold), 1.0 if first else 1 - MOMENTUM)
