"""What the families are made of. x is [seq, d_model]; q, k and v are [n_heads, seq, d_head]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Weights:
    """A model's tensors whose names begin alike."""

    tensors: dict[str, Tensor]
    prefix: str = ""

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[self.prefix + name]

    def at(self, name: str) -> Weights:
        return Weights(self.tensors, f"{self.prefix}{name}.")

    def linear(self, name: str, x: Tensor) -> Tensor:
        """x W^T, and the bias if there is one."""
        return x @ self[f"{name}.weight"].T + self.tensors.get(f"{self.prefix}{name}.bias", torch.zeros(()))


class Stream:
    """The residual stream, and what it was after each step."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.sites: dict[str, Tensor] = {}
        self._block = 0

    def add(self, attention: Tensor, mlp: Tensor) -> None:
        """End a block."""
        self.x = self.x + attention + mlp
        for kind, value in (("attention", attention), ("mlp", mlp), ("residuals", self.x)):
            self.sites[f"{kind}_{self._block}"] = value
        self._block += 1


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def layer_norm(x: Tensor, weights: Weights, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return rms_norm(centred, weights["weight"], eps) + weights["bias"]


def heads(x: Tensor, n_heads: int) -> Tensor:
    return x.reshape(len(x), n_heads, -1).transpose(0, 1)


def rotate(x: Tensor, theta: float, n_rotary: int | None = None) -> Tensor:
    """Rotary positions: pairs (i, i + n/2) of the first n dimensions turn by position * theta^(-2i/n)."""
    n = n_rotary or x.shape[-1]
    speed = theta ** (-torch.arange(0, n, 2) / n)
    angle = torch.arange(x.shape[1])[:, None] * speed
    a, b, rest = x.split([n // 2, n // 2, x.shape[-1] - n], dim=-1)
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin(), rest], -1)


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, window: int | None = None, cap: float | None = None
) -> Tensor:
    """Causal attention, [seq, n_heads * d_head]; a window of w sees a token itself and the w - 1 before it."""
    groups = len(q) // len(k)
    k, v = k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0)
    scores = q @ k.transpose(1, 2) * scale
    if cap is not None:
        scores = cap * (scores / cap).tanh()
    position = torch.arange(q.shape[1])
    distance = position[:, None] - position
    hidden = (distance < 0) | (distance >= (window or len(position)))
    mixed = scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v
    return mixed.transpose(0, 1).reshape(q.shape[1], -1)
