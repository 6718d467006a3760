"""TopK: the k largest pre-codes of each row are its active features.

Source: Makhzani and Frey, 2013, arXiv 1312.5663; Gao et al., 2024, arXiv 2406.04093.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import relu

from refusal.sae.k_sparse import KSparse
from refusal.sae.kernels.pairs import Pairs
from refusal.sae.kernels.products import encode_largest, largest


class TopK(KSparse):
    """A sparse autoencoder with exactly k chosen features a row; its arguments are those of ``KSparse``."""

    def activate(self, pre: Tensor) -> Tensor:
        """Keep the k largest of each row, where they are positive."""
        indices = largest(pre.detach(), self.k)
        return torch.zeros_like(pre).scatter(1, indices, relu(pre.gather(1, indices)))

    @torch.no_grad()
    def sparse_codes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the active codes of rows [batch, d_model]: values and features, both [batch, k]; no gradient."""
        pre = self.pre_codes(x * self.scale - self.b_dec)
        indices = largest(pre, self.k)
        return relu(pre.gather(1, indices)), indices

    def active_pairs(self, centred: Tensor) -> tuple[Tensor, Pairs]:
        """Return the pre-codes, and the pairs of the k largest of each row."""
        pre, indices = encode_largest(centred, self.W_enc_rows, self.b_enc, self.k)
        return pre, Pairs.of(indices, self.d_sae)
