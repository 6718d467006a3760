"""The sparse products of a training step: whatever is not active is neither multiplied nor stored.

Of d_sae features only n are active in a row. With their indices [batch, n] in hand, the reconstruction and all
gradients are weighted sums of few rows of a table, which is what ``embedding_bag`` computes:

    reconstruction       row b:      sum over its active i of     f[b, i] * W_dec[i]
    gradient of W_dec    feature i:  sum over the rows b it is active in of   f[b, i] * g[b]
    gradient of W_enc    feature i:  sum over the same rows of   df[b, i] * x[b]
    gradient of f        df[b, i] = g[b] . W_dec[i]: the derivative of <gradient of W_dec, W_dec> by f[b, i]

with g = dL/dx_hat. The three gradients go through the same pairs (b, i) sorted by feature; they are sorted once.
Both weights are stored with one row a feature, [d_sae, d_model], so that every read and write is a whole row.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

BLOCK_COLUMNS = 16  # in the first pass of ``largest``
BLOCKS_PAY_FROM = 128  # it pays from so many columns for each one sought: measured


def largest(x: Tensor, k: int) -> Tensor:
    """Return the columns of the k largest entries of each row, [batch, k], in no order.

    Of many columns, the k largest lie in the k blocks with the largest maxima; so most columns are only read once.
    """
    batch, n = x.shape
    if n < BLOCKS_PAY_FROM * k:
        return x.topk(k, dim=1, sorted=False).indices
    n_blocks = n // BLOCK_COLUMNS  # block i holds the columns i, i + n_blocks, i + 2 n_blocks, ...
    in_blocks = n_blocks * BLOCK_COLUMNS
    blocks = x[:, :in_blocks].unflatten(1, (BLOCK_COLUMNS, n_blocks)).amax(1).topk(k, dim=1, sorted=False).indices
    starts = torch.arange(0, in_blocks, n_blocks, device=x.device)
    rest = torch.arange(in_blocks, n, device=x.device).expand(batch, -1)
    columns = torch.cat([(blocks[:, None] + starts[:, None]).flatten(1), rest], 1)  # [batch, BLOCK_COLUMNS * k + rest]
    return columns.gather(1, x.gather(1, columns).topk(k, dim=1, sorted=False).indices)


class Active:
    """Which features are active in which row, and the same pairs sorted by feature.

    Args:
        indices: Active features of each row, [batch, n], int64.
        d_sae: Number of features.
    """

    def __init__(self, indices: Tensor, d_sae: int) -> None:
        self.indices = indices
        self.d_sae = d_sae

    @cached_property
    def _by_feature(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sorted places of the pairs [batch * n], their rows [batch * n], first place of each feature [d_sae + 1]."""
        flat = self.indices.reshape(-1)
        order = flat.sort(stable=True).indices
        offsets = torch.zeros(self.d_sae + 1, dtype=torch.int64, device=flat.device)
        torch.cumsum(torch.bincount(flat, minlength=self.d_sae), 0, out=offsets[1:])
        return order, order // self.indices.shape[1], offsets

    def sort(self, values: Tensor) -> Tensor:
        """Bring the pairs' values from [batch, n] into the order of the features, [batch * n]."""
        return values.reshape(-1).index_select(0, self._by_feature[0])

    def unsort(self, values: Tensor) -> Tensor:
        """Bring the pairs' values from the order of the features back to [batch, n]."""
        return torch.empty_like(values).scatter_(0, self._by_feature[0], values).view(self.indices.shape)

    def sum_by_feature(self, table: Tensor, weights: Tensor) -> Tensor:
        """Sum ``weight * table[row]`` over the pairs of each feature.

        Args:
            table: One row for each row of the batch, [batch, width].
            weights: The pairs' weights in the order of the features, [batch * n].

        Returns:
            [d_sae, width]; zero for features that are active nowhere.
        """
        _, rows, offsets = self._by_feature
        return embedding_bag(rows, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)


def sum_by_row(values: Tensor, W_dec: Tensor, indices: Tensor) -> Tensor:
    """Return the sum of each row's active features' decoder rows: [batch, n], [d_sae, d_model] -> [batch, d_model]."""
    return embedding_bag(indices, W_dec, mode="sum", per_sample_weights=values)


class _PreCodesAt(torch.autograd.Function):
    """The gradient of (x - b_dec) W_enc + b_enc at the active pairs alone."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, centred: Tensor, W_rows: Tensor, *rest: Any) -> Tensor:
        active = ctx.active = rest[-1]
        ctx.save_for_backward(centred, W_rows)
        return pre.gather(1, active.indices).to(W_rows.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        centred, W_rows = ctx.saved_tensors
        weights = ctx.active.sort(grad_outputs[0])
        d_rows = ctx.active.sum_by_feature(centred, weights)
        d_bias = ctx.active.sum_by_feature(centred.new_ones(len(centred), 1), weights)[:, 0]
        return None, None, d_rows, d_bias, -(d_bias @ W_rows), None


class _Decode(torch.autograd.Function):
    """The reconstruction without its bias."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, W_dec: Tensor, active: Active) -> Tensor:
        ctx.active = active
        ctx.save_for_backward(values, W_dec)
        return sum_by_row(values, W_dec, active.indices)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        values, W_dec = ctx.saved_tensors
        with torch.enable_grad():
            weights = ctx.active.sort(values).requires_grad_()
            d_rows = ctx.active.sum_by_feature(grad_outputs[0].contiguous(), weights)
            (d_weights,) = torch.autograd.grad(d_rows, weights, W_dec)
        return ctx.active.unsort(d_weights), d_rows.detach(), None


def pre_codes_at(pre: Tensor, centred: Tensor, W_rows: Tensor, b_enc: Tensor, b_dec: Tensor, active: Active) -> Tensor:
    """Take the active pre-codes out of all of them; gradients flow to the weights and biases, not to ``pre``.

    Args:
        pre: (x - b_dec) W_enc + b_enc, [batch, d_sae], computed without a graph.
        centred: x - b_dec without a graph, [batch, d_model].
        W_rows: The encoder, one row a feature, [d_sae, d_model].
        b_enc: Its bias, [d_sae].
        b_dec: The decoder's bias, [d_model].
        active: The active pairs.

    Returns:
        [batch, n]
    """
    return _PreCodesAt.apply(pre, centred, W_rows, b_enc, b_dec, active)  # type: ignore[return-value]


def decode(values: Tensor, W_dec: Tensor, active: Active) -> Tensor:
    """Decode active codes [batch, n] to [batch, d_model], without a bias; differentiable in both."""
    return _Decode.apply(values, W_dec, active)  # type: ignore[return-value]
