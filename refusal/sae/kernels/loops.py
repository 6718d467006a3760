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

BLOCK = 16  # columns that ``largest`` compares before it looks closer

loop: Any = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})  # NaN stays NaN


@loop
def largest(x: Floats, columns: Numbers, lo: int, hi: int) -> None:  # noqa: C901  one search; calls cost in here
    """Find the columns of the k largest entries of each row: [batch, n] -> [batch, k].

    Column c is in block c mod n_blocks. The k largest entries lie in the k blocks with the largest maxima, since k
    blocks each have an entry as large as the least of those maxima: so most columns are only compared once.
    """
    n, k = x.shape[1], columns.shape[1]
    n_blocks = max(n // BLOCK, min(n, 4 * k))
    maxima = np.empty(n_blocks, x.dtype)
    heap, blocks, values = np.empty(k, x.dtype), np.empty(k, np.int64), np.empty(k, x.dtype)
    for b in range(lo, hi):
        row, found = x[b], columns[b]
        maxima[:] = row[:n_blocks]
        for start in range(n_blocks, n, n_blocks):
            part = row[start : min(start + n_blocks, n)]
            for i in range(len(part)):
                maxima[i] = part[i] if part[i] > maxima[i] else maxima[i]
        for i in range(k):
            heap[i], blocks[i], found[i] = maxima[i], i, i
        _make_heap(heap, blocks)
        for i in range(k, n_blocks):
            if maxima[i] > heap[0]:
                _replace_least(heap, blocks, maxima[i], i)
        n_found = 0
        for block in blocks:
            for i in range(block, n, n_blocks):
                if n_found < k and row[i] >= heap[0]:
                    values[n_found], found[n_found] = row[i], i
                    n_found += 1
                    if n_found == k:
                        _make_heap(values, found)
                elif n_found == k and row[i] > values[0]:
                    _replace_least(values, found, row[i], i)


@loop
def _make_heap(values: Floats, names: Numbers) -> None:
    for i in range(len(values) // 2 - 1, -1, -1):
        _sift(values, names, i)


@loop
def _replace_least(values: Floats, names: Numbers, value: float, name: int) -> None:
    values[0], names[0] = value, name
    _sift(values, names, 0)


@loop
def _sift(values: Floats, names: Numbers, i: int) -> None:
    """Let an entry sink until none below it is less: the least of a heap stands first."""
    value, name = values[i], names[i]
    while 2 * i + 1 < len(values):
        child = 2 * i + 1
        if child + 1 < len(values) and values[child + 1] < values[child]:
            child += 1
        if values[child] >= value:
            break
        values[i], names[i] = values[child], names[child]
        i = child
    values[i], names[i] = value, name


@loop
def sort_by_feature(rows: Numbers, features: Numbers, order: Numbers, sorted_rows: Numbers, offsets: Numbers) -> None:
    """Sort pairs by counting, which keeps those of one feature in their order; see ``pairs.ByFeature``."""
    offsets[:] = 0
    for feature in features:
        offsets[feature + 1] += 1
    for i in range(1, len(offsets)):
        offsets[i] += offsets[i - 1]
    places = offsets[:-1].copy()
    for pair, feature in enumerate(features):
        place = places[feature]
        order[place], sorted_rows[place] = pair, rows[pair]
        places[feature] += 1


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


@loop
def weight_gradients(  # noqa: PLR0913  Numba knows arrays, not what they are of
    grads: Floats,
    factor: float,
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
def _add_rows(
    out: Floats, factor: float, weights: Floats, table: Floats, numbers: Numbers, first: int, last: int
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
def normalise_rows(W: Floats, lo: int, hi: int) -> None:
    """Bring rows to unit length, while they are at hand; rows of zeros stay."""
    for i in range(lo, hi):
        row, squares = W[i], np.float32(0)
        for j in range(len(row)):
            squares += row[j] * row[j]
        length = np.sqrt(squares)
        if length > 0:
            inverse = 1 / length
            for j in range(len(row)):
                row[j] *= inverse
