"""How far an autoencoder is from what it should compute."""

from __future__ import annotations

import numpy as np
import torch

from refusal.sae.base import SparseAutoencoder


def reconstruct(sae: SparseAutoencoder, x: np.ndarray) -> np.ndarray:
    """x_hat of rows, by the codes of all features and by the active ones, which must agree."""
    rows = torch.from_numpy(x)
    dense, sparse = sae.decode(sae.encode(rows)), sae.decode_sparse(*sae.sparse_codes(rows))
    assert gap(sparse.numpy(), dense.numpy()) < 1e-6
    return dense.numpy()


def gap(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, relative to the largest entry."""
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())
