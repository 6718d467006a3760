"""TopK: the k largest pre-codes of each row are its active features.

Source: Makhzani and Frey, 2013, arXiv 1312.5663; Gao et al., 2024, arXiv 2406.04093.
"""

from __future__ import annotations

from torch import Tensor

from refusal.sae.base import SparseAutoencoder
from refusal.sae.kernels import largest


class TopK(SparseAutoencoder):
    """A sparse autoencoder with exactly k chosen features a row."""

    def select(self, pre: Tensor) -> Tensor:
        """Return the indices of the k largest pre-codes, [batch, k]."""
        return largest(pre, self.k)
