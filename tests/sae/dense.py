"""The oracle of the sparse kernels: the same sums by dense products, which multiply by every zero."""

from __future__ import annotations

import torch
from torch import Tensor

from refusal.sae.kernels.pairs import Pairs


def mask(pairs: Pairs) -> Tensor:
    """Return 1 at the active pairs and 0 elsewhere, [n_rows, n_features]."""
    chosen = torch.zeros(pairs.n_rows, pairs.n_features)
    chosen[pairs.rows, pairs.features] = 1.0
    return chosen


def reconstruct(x: Tensor, weights: list[Tensor], pairs: Pairs) -> Tensor:
    """Return the reconstruction by W_enc_rows, b_enc, W_dec and b_dec, [n_rows, d_model]."""
    W_rows, b_enc, W_dec, b_dec = weights
    pre = (x - b_dec) @ W_rows.T + b_enc
    return (torch.relu(pre) * mask(pairs).to(pre)) @ W_dec + b_dec
