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
def decode_gradients(
    grad: Floats,
    values: Floats,
    W_dec: Floats,
    order: Numbers,
    rows: Numbers,
    offsets: Numbers,
    d_values: Floats,
    d_W_dec: Floats,
    lo: int,
    hi: int,
) -> None:
    """By feature: d_W_dec[i] = sum of f[b, i] * g[b], and d_values at (b, i) = g[b] . W_dec[i], in one pass over g."""
    for i in range(lo, hi):
        weight, d_weight = W_dec[i], d_W_dec[i]
        d_weight[:] = 0
        for place in range(offsets[i], offsets[i + 1]):
            pair = order[place]
            value, g = values[pair], grad[rows[place]]
            product = np.float32(0)
            for j in range(len(g)):
                product += g[j] * weight[j]
                d_weight[j] += value * g[j]
            d_values[pair] = product


@loop
def gather_gradients(
    grad: Floats,
    centred: Floats,
    order: Numbers,
    rows: Numbers,
    offsets: Numbers,
    d_W_rows: Floats,
    d_b_enc: Floats,
    lo: int,
    hi: int,
) -> None:
    """By feature: d_W_rows[i] = sum of grad at (b, i) * centred[b], and d_b_enc[i] = sum of grad at (b, i)."""
    for i in range(lo, hi):
        d_weight, total = d_W_rows[i], np.float32(0)
        d_weight[:] = 0
        for place in range(offsets[i], offsets[i + 1]):
            value, x = grad[order[place]], centred[rows[place]]
            total += value
            for j in range(len(x)):
                d_weight[j] += value * x[j]
        d_b_enc[i] = total


@loop
def normalise_rows(W: Floats, lo: int, hi: int) -> None:
    """Bring rows to unit length, while they are at hand; rows of zeros stay."""
    for i in range(lo, hi):
        row, squares = W[i], np.float32(0)
        for j in range(len(row)):
            squares += row[j] * row[j]
        length = np.sqrt(squares)
        if length > 0:
            for j in range(len(row)):
                row[j] /= length
