"""The loops of a training step on a CPU, compiled by Numba: each does a part of the rows or features, lo to hi.

A feature's rows of the weights and their gradients are read and written once, a column after the other, and whatever
is not active is not touched. The loops hold no lock of Python's, so that ``cpu`` can run them in threads; as each
writes its own rows alone, what comes out does not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]
Real = float | np.float32  # comes as Python's, and is rounded once

NAN_STAYS_NAN = {"reassoc", "contract", "nsz", "arcp"}
loop: Any = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=NAN_STAYS_NAN)


@loop
def sort_by_feature(row_offsets: Numbers, features: Numbers, order: Numbers, rows: Numbers, offsets: Numbers) -> None:
    """Sort pairs by counting, which keeps those of one feature in their order; see ``pairs.ByFeature``."""
    offsets[:] = 0
    for feature in features:
        offsets[feature + 1] += 1
    for i in range(1, len(offsets)):
        offsets[i] += offsets[i - 1]
    places = offsets[:-1].copy()
    for row in range(len(row_offsets) - 1):
        for pair in range(row_offsets[row], row_offsets[row + 1]):
            place = places[features[pair]]
            order[place], rows[place] = pair, row
            places[features[pair]] += 1


@loop
def reconstruct(
    pre: Floats,
    centred: Floats,
    W_dec: Floats,
    offsets: Numbers,
    features: Numbers,
    ends: Numbers,
    values: Floats,
    errors: Floats,
    squares: Floats,
    lo: int,
    hi: int,
) -> None:
    """By row: the codes of its pairs, and what the features before each of the ends leave of it; see ``products``."""
    for b in range(lo, hi):
        pair, last = offsets[b], offsets[b + 1]
        for prefix in range(len(ends)):
            error, first = errors[prefix, b], pair
            error[:] = centred[b] if prefix == 0 else errors[prefix - 1, b]
            while pair < last and features[pair] < ends[prefix]:
                code = pre[b, features[pair]]
                values[pair] = code if code > 0 else 0
                pair += 1
            _add_rows(error, np.float32(-1), values, W_dec, features, first, pair)
            total = np.float32(0)
            for j in range(len(error)):
                total += error[j] * error[j]
            squares[prefix, b] = total


@loop
def weight_gradients(  # noqa: PLR0913  Numba knows arrays, not what they are of
    grads: Floats,
    factor: Real,
    values: Floats,
    centred: Floats,
    W_dec: Floats,
    order: Numbers,
    rows: Numbers,
    offsets: Numbers,
    ends: Numbers,
    d_W_dec: Floats,
    d_W_rows: Floats,
    d_b_enc: Floats,
    lo: int,
    hi: int,
) -> None:
    """By feature: all gradients of its weights, in one pass over its pairs; see ``products``."""
    factor = np.float32(factor)
    codes, d_codes = np.empty(len(rows), np.float32), np.empty(len(rows), np.float32)
    for i in range(lo, hi):
        first, last, d_bias = offsets[i], offsets[i + 1], np.float32(0)
        grad = grads[np.searchsorted(ends, i, side="right")]
        _multiply_rows(d_codes, W_dec[i], grad, rows, first, last)
        for place in range(first, last):
            codes[place] = values[order[place]]
            d_codes[place] = d_codes[place] if codes[place] > 0 else 0
            d_bias += d_codes[place]
        d_W_dec[i], d_W_rows[i], d_b_enc[i] = 0, 0, factor * d_bias
        _add_rows(d_W_dec[i], factor, codes, grad, rows, first, last)
        _add_rows(d_W_rows[i], factor, d_codes, centred, rows, first, last)


@loop
def bias_gradient(
    grads: Floats, factor: Real, d_b_enc: Floats, W_rows: Floats, d_b_dec: Floats, lo: int, hi: int
) -> None:
    """By column: the gradient by b_dec, factor * sum of grads - d_b_enc W_rows; see ``products``."""
    factor = np.float32(factor)
    out, n = d_b_dec[lo:hi], len(d_b_enc)
    out[:] = 0
    for b in range(len(grads)):
        grad = grads[b, lo:hi]
        for j in range(hi - lo):
            out[j] += factor * grad[j]
    for i in range(0, n - 3, 4):
        a, b, c, d = d_b_enc[i], d_b_enc[i + 1], d_b_enc[i + 2], d_b_enc[i + 3]
        w, x, y, z = W_rows[i, lo:hi], W_rows[i + 1, lo:hi], W_rows[i + 2, lo:hi], W_rows[i + 3, lo:hi]
        for j in range(hi - lo):
            out[j] -= a * w[j] + b * x[j] + c * y[j] + d * z[j]
    for i in range(n - n % 4, n):
        a, w = d_b_enc[i], W_rows[i, lo:hi]
        for j in range(hi - lo):
            out[j] -= a * w[j]


@loop
def _add_rows(
    out: Floats, factor: Real, weights: Floats, table: Floats, numbers: Numbers, first: int, last: int
) -> None:
    """Add factor * weight * table[number] for a run of weights and numbers.

    Four at a time, as the sum is then read and written a fourth as often.
    """
    for p in range(first, last - 3, 4):
        a, b, c, d = factor * weights[p], factor * weights[p + 1], factor * weights[p + 2], factor * weights[p + 3]
        w, x, y, z = table[numbers[p]], table[numbers[p + 1]], table[numbers[p + 2]], table[numbers[p + 3]]
        for j in range(len(out)):
            out[j] += a * w[j] + b * x[j] + c * y[j] + d * z[j]
    for p in range(last - (last - first) % 4, last):
        a, w = factor * weights[p], table[numbers[p]]
        for j in range(len(out)):
            out[j] += a * w[j]


@loop
def _multiply_rows(out: Floats, x: Floats, table: Floats, numbers: Numbers, first: int, last: int) -> None:
    """Write the products x . table[number] for a run of numbers."""
    for p in range(first, last - 3, 4):
        a = b = c = d = np.float32(0)
        u, v, w, y = table[numbers[p]], table[numbers[p + 1]], table[numbers[p + 2]], table[numbers[p + 3]]
        for j in range(len(x)):
            a += x[j] * u[j]
            b += x[j] * v[j]
            c += x[j] * w[j]
            d += x[j] * y[j]
        out[p], out[p + 1], out[p + 2], out[p + 3] = a, b, c, d
    for p in range(last - (last - first) % 4, last):
        a, u = np.float32(0), table[numbers[p]]
        for j in range(len(x)):
            a += x[j] * u[j]
        out[p] = a


@loop
def centre(x: Floats, scale: Real, shift: Floats, centred: Floats, lo: int, hi: int) -> None:
    """By row: scale * x - shift."""
    scale = np.float32(scale)
    for b in range(lo, hi):
        row, out = x[b], centred[b]
        for j in range(len(row)):
            out[j] = scale * row[j] - shift[j]


@loop
def adam(
    W: Floats,
    grad: Floats,
    mean: Floats,
    square: Floats,
    beta_1: Real,
    beta_2: Real,
    step_size: Real,
    inverse_root: Real,
    eps: Real,
    unit_rows: bool,
    lo: int,
    hi: int,
) -> None:
    """By row: a step of Adam, after which the row may get unit length while it is at hand; see ``adam``."""
    rest_1, rest_2 = np.float32(1 - beta_1), np.float32(1 - beta_2)
    beta_1, beta_2, step_size = np.float32(beta_1), np.float32(beta_2), np.float32(step_size)
    inverse_root, eps = np.float32(inverse_root), np.float32(eps)
    for i in range(lo, hi):
        w, g, m, v = W[i], grad[i], mean[i], square[i]
        squares = np.float32(0)
        for j in range(len(w)):
            m_j = beta_1 * m[j] + rest_1 * g[j]
            v_j = beta_2 * v[j] + rest_2 * g[j] * g[j]
            w_j = w[j] - step_size * m_j / (np.sqrt(v_j) * inverse_root + eps)
            m[j], v[j], w[j] = m_j, v_j, w_j
            squares += w_j * w_j
        if unit_rows and squares > 0:
            inverse = np.float32(1) / np.sqrt(squares)
            for j in range(len(w)):
                w[j] *= inverse
