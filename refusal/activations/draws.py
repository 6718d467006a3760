"""Which rows make up each batch: the draws of a stream, without the rows themselves.

For every row of a batch the weights pick a pool, and that pool gives its next row (``order.py``). All of it follows
from the seed and the number of the batch; what each pool has given so far is kept, so that a place in the stream
is a few counters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from refusal.activations.order import PoolOrder

BLOCK_ROWS = 32_768  # the order is worked out for so many rows at a time


class Place(NamedTuple):
    """How far a stream is."""

    batches: int
    """Number of batches that it has given."""
    drawn: tuple[int, ...]
    """Rows that each pool had given at the start of the block, which that batch is in."""


class _Block(NamedTuple):
    """The order of the rows of some batches."""

    ids: np.ndarray
    """Numbers of the rows, [batches * batch_size]."""
    lanes: np.ndarray
    """Their lanes, [batches * batch_size]."""
    drawn: tuple[int, ...]
    """Rows that each pool has given at its end."""


class Draws:
    """The numbers of the rows of batch after batch.

    Args:
        orders: The order of each pool; rows are numbered pool by pool.
        weights: How often each pool is picked, [n_pools], positive.
        batch_size: Rows of a batch.
        seed: What the picks follow from.
    """

    def __init__(self, orders: Sequence[PoolOrder], weights: np.ndarray, batch_size: int, seed: int) -> None:
        self._orders, self._batch_size, self._seed = orders, batch_size, seed
        self._cumulative = np.cumsum(weights)
        self._bases = np.cumsum([0, *(order.n_rows for order in orders)])
        self._per_block = max(1, BLOCK_ROWS // batch_size)
        self._block: _Block | None = None
        self.place = Place(0, (0,) * len(orders))

    def go_to(self, place: Place) -> None:
        """Go on from a place."""
        self.place, self._block = place, None

    def next(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of the next batch's rows, and their lanes, both [batch_size]."""
        block = self._block = self._block or self._make_block()
        batches, drawn = self.place
        start = batches % self._per_block * self._batch_size
        if (batches + 1) % self._per_block == 0:
            drawn, self._block = block.drawn, None
        self.place = Place(batches + 1, drawn)
        batch = slice(start, start + self._batch_size)
        return block.ids[batch], block.lanes[batch]

    def _make_block(self) -> _Block:
        n_pools, n_rows = len(self._orders), self._per_block * self._batch_size
        rng = np.random.default_rng([self._seed, n_pools, self.place.batches // self._per_block])
        picks = np.searchsorted(self._cumulative, rng.random(n_rows) * self._cumulative[-1])
        counts = np.bincount(picks, minlength=n_pools)
        places = np.split(np.argsort(picks, kind="stable"), np.cumsum(counts)[:-1])
        ids, lanes = np.empty(n_rows, dtype=np.int64), np.empty(n_rows, dtype=np.int8)
        for i, (order, drawn, count) in enumerate(zip(self._orders, self.place.drawn, counts, strict=True)):
            rows = order.rows(drawn, int(count))
            ids[places[i]] = self._bases[i] + rows
            lanes[places[i]] = order.lanes(rows)
        return _Block(ids, lanes, tuple((self.place.drawn + counts).tolist()))
