"""Autoencoders to be put in a model's place: one that changes nothing, one that knows nothing, one that looks on."""

from __future__ import annotations

import torch
from torch import Tensor

from refusal.sae.architectures.topk import TopK


def perfect(d_model: int) -> TopK:
    """Return an autoencoder with a feature for each dimension's positive and for its negative part: x_hat = x."""
    sae = TopK(d_model, 2 * d_model, d_model)
    both = torch.cat([torch.eye(d_model), -torch.eye(d_model)])
    sae.W_enc_rows.data.copy_(both)
    sae.W_dec.data.copy_(both)
    return sae.eval().requires_grad_(False)


def useless(d_model: int) -> TopK:
    """Return an autoencoder with one active feature, whose directions are random."""
    return TopK(d_model, 2 * d_model, 1, seed=7).eval().requires_grad_(False)


class Onlooker(TopK):
    """Changes nothing, and keeps all rows that it is given."""

    def __init__(self, d_model: int) -> None:
        super().__init__(d_model, 2 * d_model, d_model)
        self.load_state_dict(perfect(d_model).state_dict())
        self.seen: list[Tensor] = []

    def sparse_codes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append(x)
        return super().sparse_codes(x)
