"""Encoding and decoding at the active pairs alone, differentiable: what is not active is neither multiplied nor stored.

All pre-codes are computed by one dense product without a graph; ``gather_codes`` takes the active ones out of it and
knows their gradients. The heavy work is in ``products``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from refusal.sae.kernels.pairs import Pairs
from refusal.sae.kernels.products import decode_gradients, gather_gradients, sum_by_row


def gather_codes(pre: Tensor, centred: Tensor, W_rows: Tensor, b_enc: Tensor, b_dec: Tensor, pairs: Pairs) -> Tensor:
    """Return the codes max(p, 0) of the active pairs; gradients flow to the weights and biases, not to ``pre``.

    Args:
        pre: p = (x - b_dec) W_enc + b_enc, [n_rows, n_features], computed without a graph.
        centred: x - b_dec without a graph, [n_rows, d_model].
        W_rows: The encoder, one row a feature, [n_features, d_model].
        b_enc: Its bias, [n_features].
        b_dec: The decoder's bias, [d_model].
        pairs: The active pairs.

    Returns:
        [n_pairs]
    """
    return _Gather.apply(pre, centred, W_rows, b_enc, b_dec, pairs)  # type: ignore[return-value]


def decode(values: Tensor, W_dec: Tensor, pairs: Pairs) -> Tensor:
    """Decode active codes [n_pairs] to [n_rows, d_model], without a bias; differentiable in both."""
    return _Decode.apply(values, W_dec, pairs)  # type: ignore[return-value]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor, centred: Tensor, W_rows: Tensor, *rest: Any) -> Tensor:
        pairs = ctx.pairs = rest[-1]
        values = torch.relu_(pre[pairs.rows, pairs.features].to(W_rows.dtype))
        ctx.save_for_backward(values, centred, W_rows)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        values, centred, W_rows = ctx.saved_tensors
        return None, None, *gather_gradients(grad_outputs[0] * (values > 0), centred, W_rows, ctx.pairs), None


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, W_dec: Tensor, pairs: Pairs) -> Tensor:
        ctx.pairs = pairs
        ctx.save_for_backward(values, W_dec)
        return sum_by_row(values, W_dec, pairs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        values, W_dec = ctx.saved_tensors
        return *decode_gradients(grad_outputs[0], values, W_dec, ctx.pairs), None
