"""The k largest entries of each row, found by counting: no heap, no sorting, hardly a branch to be mispredicted.

The k-th largest of some numbers is the greatest t that at least k of them reach. It is found by bisection, as one count
over n numbers costs n / 16 instructions. Floats are compared as integers of the same order, which are bisected in at
most 32 counts, whatever their range; numbers that are none are among them, too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from refusal.sae.kernels.loops import Floats, Numbers, loop

Keys = NDArray[np.int32]

BLOCK = 16  # columns that are compared at first; measured
ALL_BUT_SIGN = np.int32(0x7FFFFFFF)


@loop
def largest(x: Floats, shift: Floats, columns: Numbers, lo: int, hi: int) -> None:
    """Find the columns of the k largest entries of each row, in any order: [batch, n] -> [batch, k].

    First ``shift``, of length n or 0, is added to each row, in place.

    Column c is in block c mod n_blocks. The k largest entries lie in the k blocks with the largest maxima, since k
    blocks each have an entry as large as the least of those maxima: so most columns are only compared once.
    """
    n, k = x.shape[1], columns.shape[1]
    n_blocks = max(n // BLOCK, min(n, 2 * k))
    maxima, chosen = np.empty(n_blocks, np.float32), np.empty(n + 1, np.int64)
    block_bits = maxima.view(np.int32)
    keys, places = np.empty(n + 1, np.int32), np.empty(n + 1, np.int64)
    for b in range(lo, hi):
        row, bits = x[b], x[b].view(np.int32)
        for i in range(len(shift)):
            row[i] += shift[i]
        _maxima(row, maxima)
        for i in range(n_blocks):
            keys[i] = _in_order(block_bits[i])
        bound = _kth_largest(keys, n_blocks, k)
        n_chosen = _reaching(keys, n_blocks, bound, chosen)
        n_keys = 0
        for block in chosen[:n_chosen]:
            for i in range(block, n, n_blocks):
                key = _in_order(bits[i])
                keys[n_keys], places[n_keys] = key, i  # the next one overwrites what is below the bound
                n_keys += key >= bound
        least = _kth_largest(keys, n_keys, k)
        n_found = _reaching(keys, n_keys, least + 1, chosen)
        for i in range(n_keys):  # as many of its equals as there is room for
            if keys[i] == least and n_found < k:
                chosen[n_found] = i
                n_found += 1
        for i in range(k):
            columns[b, i] = places[chosen[i]]


@loop
def _maxima(row: Floats, maxima: Floats) -> None:
    """Write the largest entry of each block, one for every place in ``maxima``."""
    n_blocks = len(maxima)
    maxima[:] = row[:n_blocks]
    for start in range(n_blocks, len(row), n_blocks):
        part = row[start : min(start + n_blocks, len(row))]
        for i in range(len(part)):
            maxima[i] = part[i] if part[i] > maxima[i] else maxima[i]


@loop
def _in_order(bits: int) -> int:
    """Return an integer for a float's bits, so that integers are ordered as their floats are."""
    return bits ^ ((bits >> 31) & ALL_BUT_SIGN)


@loop
def _kth_largest(keys: Keys, n: int, k: int) -> np.int64:
    """Return the greatest number that at least k of the first n keys reach."""
    low = high = keys[0]
    for i in range(n):
        low, high = min(low, keys[i]), max(high, keys[i])
    reached, missed = np.int64(low), np.int64(high) + 1
    while missed - reached > 1:
        middle = np.int32((reached + missed) >> 1)
        count = 0
        for i in range(n):
            count += keys[i] >= middle
        if count >= k:
            reached = np.int64(middle)
        else:
            missed = np.int64(middle)
        if count == k:
            break
    return reached


@loop
def _reaching(keys: Keys, n: int, least: np.int64, places: Numbers) -> int:
    """Write the places of those of the first n keys that are ``least`` or more; return their number."""
    count = 0
    for i in range(n):
        places[count] = i  # without a branch: the next one overwrites it
        count += keys[i] >= least
    return count
