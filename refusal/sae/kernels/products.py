"""The heavy work of a training step as plain functions of tensors: on a CPU in ``cpu``, elsewhere by torch.

With the active pairs (b, i) in hand, the reconstruction and all gradients are weighted sums of few rows of a table,
which is what ``embedding_bag`` computes:

    reconstruction       row b:      sum over its pairs (b, i) of   f[b, i] * W_dec[i]
    gradient of W_dec    feature i:  sum over its pairs (b, i) of   f[b, i] * g[b]
    gradient of W_enc    feature i:  sum over the same pairs of     df[b, i] * x[b]
    gradient of f        df[b, i] = g[b] . W_dec[i]: the derivative of <gradient of W_dec, W_dec> by f[b, i]

with g = dL/dx_hat. Both weights are stored with one row a feature, so that every read and write is a whole row.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from refusal.sae.kernels import cpu
from refusal.sae.kernels.pairs import Pairs

BLOCK_COLUMNS = 16  # in the first pass of ``largest``
BLOCKS_PAY_FROM = 128  # it pays from so many columns for each one sought: measured


def largest(x: Tensor, k: int) -> Tensor:
    """Return the columns of the k largest entries of each row, [batch, k], in no order.

    Of many columns, the k largest lie in the k blocks with the largest maxima; so most columns are only read once.
    """
    if _suits_cpu(x):
        return cpu.largest(x, k)
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


def sum_by_row(values: Tensor, table: Tensor, pairs: Pairs) -> Tensor:
    """Sum ``value * table[feature]`` over the pairs of each row.

    Args:
        values: One for each pair, [n_pairs].
        table: One row a feature, [n_features, width].
        pairs: The pairs.

    Returns:
        [n_rows, width]; zero for rows without a pair.
    """
    return _bags(pairs.features, table, pairs.row_offsets, values)


def decode_gradients(grad: Tensor, values: Tensor, W_dec: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``sum_by_row(values, W_dec, pairs)`` by the values and by W_dec.

    Args:
        grad: dL by d of its result, [n_rows, d_model].
        values: [n_pairs]
        W_dec: [n_features, d_model]
        pairs: The pairs.

    Returns:
        [n_pairs] and [n_features, d_model].
    """
    if _suits_cpu(W_dec):
        return cpu.decode_gradients(grad, values, W_dec, pairs)
    order, rows, offsets = pairs.by_feature
    with torch.enable_grad():
        weights = values[order].requires_grad_()
        d_W_dec = _bags(rows, grad.contiguous(), offsets, weights)
        (d_weights,) = torch.autograd.grad(d_W_dec, weights, W_dec)
    return torch.empty_like(values).scatter_(0, order, d_weights), d_W_dec.detach()


def gather_gradients(grad: Tensor, centred: Tensor, W_rows: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the active pre-codes, ``centred[row] . W_rows[feature] + b_enc[feature]``.

    Args:
        grad: dL by d of each pre-code, [n_pairs].
        centred: x - b_dec, [n_rows, d_model].
        W_rows: The encoder, one row a feature, [n_features, d_model].
        pairs: The pairs.

    Returns:
        By W_rows [n_features, d_model], by b_enc [n_features], by b_dec [d_model].
    """
    if _suits_cpu(W_rows):
        d_rows, d_bias = cpu.gather_gradients(grad, centred, pairs)
    else:
        order, rows, offsets = pairs.by_feature
        weights = grad[order]
        d_rows = _bags(rows, centred, offsets, weights)
        d_bias = _bags(rows, centred.new_ones(len(centred), 1), offsets, weights)[:, 0]
    return d_rows, d_bias, -(d_bias @ W_rows)


def normalise_rows(W: Tensor) -> None:
    """Bring the rows of [n, width] to unit length, in place; rows of zeros stay."""
    if _suits_cpu(W):
        cpu.normalise_rows(W)
    else:
        normalize(W, dim=1, out=W)


def _bags(numbers: Tensor, table: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """Sum ``weight * table[number]`` between offsets: [n], [m, width], [bags + 1], [n] -> [bags, width]."""
    return embedding_bag(numbers, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)


def _suits_cpu(x: Tensor) -> bool:
    """Whether the loops of ``cpu`` are made for such a tensor."""
    return x.device.type == "cpu" and x.dtype == torch.float32
