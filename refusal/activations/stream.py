"""An endless, shuffled stream of a site's rows, mixed as a sampler says.

1. For every row of a batch the sampler's weights pick a stratum, and ``last_fraction`` whether it is one of the
   last prompt positions, where refusal is decided, or another.
2. That pool gives its next row: without replacement until it is exhausted, then in a new order (``order.py``).
3. Rows belong to 16 lanes. Of W processes, rank r gets the rows of the lanes r mod W: whatever W, their batches
   together are the same. So that each row is used exactly once, ranks' parts of a batch differ by a few rows.

The order follows from the seed; the state is a few counters, and a stream that loads it goes on with the very
rows that would have come next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from refusal import InputError
from refusal.activations.order import LANES, PoolOrder
from refusal.activations.samplers import Sampler
from refusal.activations.source import MEMORY_BYTES, make_pools, open_source, piece_rows
from refusal.activations.store import ActivationStore
from refusal.models.sites import Site

TRAINING_FOLDS = ("calibration", "train")
BLOCK_ROWS = 32_768  # the order is worked out for so many rows at a time
MIN_ROWS_PER_RANK = 32  # fewer on average, and a process might get none of a batch


class _Block(NamedTuple):
    """The order of the rows of some batches."""

    ids: np.ndarray
    """Numbers of the rows, [batches * batch_size]."""
    lanes: np.ndarray
    """Their lanes, [batches * batch_size]."""
    counts: np.ndarray
    """How many come from each pool, [n_pools]."""


class RowStream:
    """Batches of a site's rows, float32 [batch, d_model], without end.

    Args:
        store: Where the rows are.
        site: Which of its sites.
        sampler: Gives each stratum its weight.
        batch_size: Rows of a batch, over all processes together.
        seed: What the order follows from.
        folds: Which folds' prompts to take.
        last_fraction: Share of rows from the last prompt position.
        rank: Which of the processes this is.
        world: Number of processes that share the batches.
        memory_bytes: The rows are held in memory up to this size, and read piece by piece beyond it.

    Raises:
        InputError: The site was not collected, the sampler leaves no rows, or a number makes no sense.
    """

    def __init__(
        self,
        store: ActivationStore,
        site: Site | str,
        sampler: Sampler,
        *,
        batch_size: int,
        seed: int,
        folds: Sequence[str] = TRAINING_FOLDS,
        last_fraction: float = 0.25,
        rank: int = 0,
        world: int = 1,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"sae.batch_size={batch_size} is not a positive number of rows")
        if not 0 <= last_fraction <= 1:
            raise InputError(f"sampler.last_fraction={last_fraction} is not between 0 and 1")
        if not 0 <= rank < world <= LANES or LANES % world:
            raise InputError(f"a stream serves 1, 2, 4, 8 or 16 processes, not number {rank} of {world}")
        if world > 1 and batch_size < MIN_ROWS_PER_RANK * world:
            least = MIN_ROWS_PER_RANK * world
            raise InputError(f"sae.batch_size={batch_size} is too small for {world} processes; use {least} or more")
        strata = store.strata(folds)
        pools = make_pools(store, strata, folds)
        weights = _pool_weights(sampler(strata), [(pool.stratum, pool.is_last) for pool in pools], last_fraction)
        self._pools = [pool for pool, weight in zip(pools, weights, strict=True) if weight > 0]
        self.n_rows = sum(pool.n_rows for pool in self._pools)
        self.batch_size = batch_size
        self._cumulative = np.cumsum(weights[weights > 0])
        self._bases = np.cumsum([0, *(pool.n_rows for pool in self._pools)])
        size = piece_rows(len(self._pools), store.d_model, memory_bytes)
        self._orders = [PoolOrder(pool.n_rows, size, (seed, i)) for i, pool in enumerate(self._pools)]
        self._source = open_source(store, site, self._pools, self._orders, memory_bytes)
        self._seed, self._rank, self._world = seed, rank, world
        self._per_block = max(1, BLOCK_ROWS // batch_size)
        self._drawn = np.zeros(len(self._pools), dtype=np.int64)  # at the start of the block
        self._batches = 0
        self._block: _Block | None = None

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        block = self._block = self._block or self._make_block()
        start = self._batches % self._per_block * self.batch_size
        batch = slice(start, start + self.batch_size)
        ids = block.ids[batch]
        if self._world > 1:
            ids = ids[block.lanes[batch] % self._world == self._rank]
        self._batches += 1
        if self._batches % self._per_block == 0:
            self._drawn = self._drawn + block.counts
            self._block = None
        return torch.from_numpy(self._source.rows(ids))

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream is, as plain numbers."""
        return {"batches": self._batches, "drawn": self._drawn.tolist(), **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where the stream was that gave this state; it may have had another number of processes.

        Raises:
            InputError: That stream had another batch size, seed or data, so that its place has no meaning here.
        """
        for name, value in self._identity().items():
            if state[name] != value:
                raise InputError(f"cannot resume the rows' order: {name} was {state[name]} and is now {value}")
        self._batches = int(state["batches"])
        self._drawn = np.array(state["drawn"], dtype=np.int64)
        self._block = None

    def _identity(self) -> dict[str, Any]:
        return {"batch_size": self.batch_size, "seed": self._seed, "rows": [pool.n_rows for pool in self._pools]}

    def _make_block(self) -> _Block:
        n_pools, n_rows = len(self._pools), self._per_block * self.batch_size
        rng = np.random.default_rng([self._seed, n_pools, self._batches // self._per_block])
        picks = np.searchsorted(self._cumulative, rng.random(n_rows) * self._cumulative[-1])
        counts = np.bincount(picks, minlength=n_pools)
        places = np.split(np.argsort(picks, kind="stable"), np.cumsum(counts)[:-1])
        ids, lanes = np.empty(n_rows, dtype=np.int64), np.empty(n_rows, dtype=np.int8)
        for i, order in enumerate(self._orders):
            rows = order.rows(int(self._drawn[i]), int(counts[i]))
            ids[places[i]] = self._bases[i] + rows
            lanes[places[i]] = order.lanes(rows)
        return _Block(ids, lanes, counts)


def _pool_weights(weights: np.ndarray, pools: Sequence[tuple[int, bool]], last_fraction: float) -> np.ndarray:
    """Share each stratum's weight between its last positions and its other rows; one alone gets all of it."""
    share = np.array([last_fraction if is_last else 1 - last_fraction for _, is_last in pools])
    stratum = np.array([number for number, _ in pools], dtype=np.int64)
    alone = np.bincount(stratum)[stratum] == 1
    return weights[stratum] * np.where(alone, 1.0, share)
