"""The oracle of the sparse kernels: the same loss by dense products, which multiply by every zero."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from refusal.sae.kernels.pairs import Pairs
from refusal.sae.kernels.reconstruction import Reconstruction, Revival, Weights


def loss(z: Tensor, weights: Weights, pairs: Pairs, ends: Sequence[int], revival: Revival | None) -> Reconstruction:
    """Return what ``kernels.reconstruction`` returns for scaled rows [n_rows, d_model], by autograd alone."""
    pre = (z - weights.b_dec) @ weights.W_enc_rows.T + weights.b_enc
    f = torch.relu(pre) * mask(pairs).to(pre)
    errors = [z - (f[:, :end] @ weights.W_dec[:end] + weights.b_dec) for end in ends]
    result = torch.stack(errors).square().mean()
    if revival is not None:
        n = min(revival.aux_k, len(revival.dead))
        best = revival.dead[pre[:, revival.dead].topk(n, dim=1).indices]
        e_hat = torch.zeros_like(pre).scatter(1, best, torch.relu(pre.gather(1, best))) @ weights.W_dec
        result = result + revival.coefficient * (errors[-1].detach() - e_hat).square().mean()
    return Reconstruction(result, errors[-1].detach(), f[pairs.rows, pairs.features].detach())


def mask(pairs: Pairs) -> Tensor:
    """Return 1 at the active pairs and 0 elsewhere, [n_rows, n_features]."""
    chosen = torch.zeros(pairs.n_rows, pairs.n_features)
    chosen[pairs.rows, pairs.features] = 1.0
    return chosen
