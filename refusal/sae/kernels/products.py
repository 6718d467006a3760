"""The heavy work of a training step as plain functions of tensors: on a CPU in ``cpu``, elsewhere by torch.

Only the encoder is a dense product. With the active pairs (b, i) of a row and a feature in hand, the reconstruction and
all gradients are weighted sums of few rows of a table, with g = dL/dz_hat:

    reconstruction       row b:      sum over its pairs (b, i) of   f[b, i] * W_dec[i]
    gradient of W_dec    feature i:  sum over its pairs (b, i) of   f[b, i] * g[b]
    gradient of f                    df[b, i] = g[b] . W_dec[i]
    gradient of W_enc    feature i:  sum over its pairs (b, i) of   df[b, i] * (z[b] - b_dec)

Torch sums so by ``embedding_bag``. Both weights are stored with one row a feature: every read and write is a whole row.

``ends`` are the ends of nested prefixes of the features, ascending, the last of them n_features. For each prefix there
is a reconstruction by its features alone; one prefix is the plain case.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from refusal.sae.kernels import cpu
from refusal.sae.kernels.pairs import Pairs

BLOCK_COLUMNS = 16  # in the first pass of ``largest``
BLOCKS_PAY_FROM = 128  # it pays from so many columns for each one sought: measured


def largest(x: Tensor, k: int) -> Tensor:
    """Return the columns of the k largest entries of each row, [batch, k], in no order.

    Of many columns, the k largest lie in the k blocks with the largest maxima; so most columns are only read once.
    """
    if suits_cpu(x):
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


def centre(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return scale * x - shift of rows [batch, d_model]; scale is a number, shift [d_model]; no gradient."""
    return cpu.centre(x, scale, shift) if suits_cpu(x) else x * scale - shift


def encode(centred: Tensor, W_rows: Tensor, b_enc: Tensor) -> Tensor:
    """Return all pre-codes [batch, n_features] of rows minus b_dec, [batch, d_model]; no gradient."""
    if suits_cpu(centred) and not torch.is_autocast_enabled("cpu"):
        return cpu.encode(centred, W_rows, b_enc)
    return torch.addmm(b_enc, centred, W_rows.T)


def encode_largest(centred: Tensor, W_rows: Tensor, b_enc: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return all pre-codes, and the columns of the k largest of each row; on a CPU b_enc is added on the way."""
    if suits_cpu(centred) and not torch.is_autocast_enabled("cpu"):
        return cpu.encode_largest(centred, W_rows, b_enc, k)
    pre = encode(centred, W_rows, b_enc)
    return pre, largest(pre, k)


def reconstruct(
    pre: Tensor, centred: Tensor, W_dec: Tensor, pairs: Pairs, ends: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Decode the active pairs.

    Args:
        pre: All pre-codes, [batch, n_features].
        centred: Rows minus b_dec, [batch, d_model].
        W_dec: The decoder, [n_features, d_model].
        pairs: The active pairs; with several prefixes, the features of each row ascending.
        ends: Ends of the prefixes, int64 [n_prefixes].

    Returns:
        The codes max(pre, 0) of the pairs, [n_pairs]; what each prefix leaves of the rows, ``centred - f W_dec``,
        [n_prefixes, batch, d_model]; and the sum of its squares.
    """
    if suits_cpu(W_dec):
        return cpu.reconstruct(pre.float(), centred, W_dec, pairs, ends)
    values = pre[pairs.rows, pairs.features].relu().to(W_dec)
    in_prefix = _prefixes(pairs, ends) * pairs.n_rows + pairs.rows
    order = in_prefix.argsort(stable=True)
    split = Pairs.of_rows(in_prefix[order], pairs.features[order], len(ends) * pairs.n_rows, pairs.n_features)
    parts = sum_by_row(values[order], W_dec, split).view(len(ends), *centred.shape)
    errors = centred - parts.cumsum(0)
    return values, errors, errors.square().sum()


def gradients(
    grads: Tensor,
    factor: float,
    values: Tensor,
    centred: Tensor,
    W_rows: Tensor,
    W_dec: Tensor,
    pairs: Pairs,
    ends: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of what ``reconstruct`` decoded, by the weights.

    That by b_dec is what it adds to each reconstruction, and takes from each row.

    Args:
        grads: dL by d of what the features of each prefix add, those of the prefix before not counted,
            [n_prefixes, batch, d_model]; it is multiplied by ``factor``.
        factor: A number.
        values: The codes of the pairs, [n_pairs]; pairs with the code 0 have no gradient.
        centred: Rows minus b_dec, [batch, d_model].
        W_rows: The encoder, [n_features, d_model].
        W_dec: The decoder, [n_features, d_model].
        pairs: The active pairs.
        ends: Ends of the prefixes, int64 [n_prefixes].

    Returns:
        By W_enc, one row a feature, [n_features, d_model], by b_enc [n_features], by W_dec, and by b_dec [d_model].
    """
    if suits_cpu(W_dec):
        return cpu.gradients(grads, factor, values, centred, W_rows, W_dec, pairs, ends)
    order, rows, offsets = pairs.by_feature
    in_prefix = _prefixes(pairs, ends)[order] * pairs.n_rows + rows
    with torch.enable_grad():  # df is the derivative of <gradient of W_dec, W_dec> by f
        weights = values[order].requires_grad_()
        d_W_dec = _bags(in_prefix, (factor * grads).flatten(0, 1), offsets, weights)
        (d_values,) = torch.autograd.grad(d_W_dec, weights, W_dec)
    d_values *= weights > 0
    d_b_enc = _bags(rows, centred.new_ones(len(centred), 1), offsets, d_values)[:, 0]
    d_b_dec = factor * grads[0].sum(0) - d_b_enc @ W_rows
    return _bags(rows, centred, offsets, d_values), d_b_enc, d_W_dec.detach(), d_b_dec


def _prefixes(pairs: Pairs, ends: Tensor) -> Tensor:
    """Return the first prefix that each pair's feature is in, int64 [n_pairs]."""
    return torch.bucketize(pairs.features, ends, right=True)


def _bags(numbers: Tensor, table: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """Sum ``weight * table[number]`` between offsets: [n], [m, width], [bags + 1], [n] -> [bags, width]."""
    return embedding_bag(numbers, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)


def suits_cpu(x: Tensor) -> bool:
    """Whether the loops of ``cpu`` are made for such a tensor."""
    return x.is_cpu and x.dtype == torch.float32
