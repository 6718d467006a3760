"""An endless, shuffled stream of the rows of one or several sites, mixed as a sampler says.

1. For every row of a batch the sampler's weights pick a stratum, and ``last_fraction`` whether it is one of the
   last prompt positions, where refusal is decided, or another (``draws.py``).
2. That pool gives its next row: without replacement until it is exhausted, then in a new order (``order.py``).
   Several sites give the same rows: they are drawn once, and each site's activations of them are read.
3. Rows belong to 16 lanes. Of W processes, rank r gets the rows of the lanes r mod W: whatever W, their batches
   together are the same. So that each row is used exactly once, ranks' parts of a batch differ by a few rows.
4. A thread reads the next batches (``source.py``) while the last one is in use.

The order follows from the seed; the state is a few counters, and a stream that loads it goes on with the very
rows that would have come next.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from refusal import InputError
from refusal.activations.draws import Draws, Place
from refusal.activations.order import LANES, PoolOrder
from refusal.activations.samplers import Sampler, uniform
from refusal.activations.source import (
    KINDS,
    MEMORY_BYTES,
    make_pools,
    open_source,
    piece_shape,
    row_bytes,
    sections_of,
)
from refusal.activations.store import ActivationStore
from refusal.models.sites import Site

TRAINING_FOLDS = ("calibration", "train")
MIN_ROWS_PER_RANK = 32  # fewer on average, and a process might get none of a batch
AHEAD = 4  # most batches that are read in advance


class RowStream(IterableDataset[Tensor]):
    """Batches of rows, float32, without end; for a DataLoader with ``batch_size=None``.

    A batch of one site is [batch, d_model]; of a list of sites, [n_sites, batch, d_model].

    Args:
        store: Where the rows are.
        site: Which of its sites, or a list of them.
        sampler: Gives each stratum its weight.
        batch_size: Rows of a batch, over all processes together.
        seed: What the order follows from.
        folds: Which folds' prompts to take.
        last_fraction: Share of rows from the last prompt position.
        kinds: Kinds of the other rows: prefix, special, instruction, template, response.
        rank: Which of the processes this is.
        world: Number of processes that share the batches.
        memory_bytes: A site's rows are held in memory up to this size, and read piece by piece beyond it.

    Raises:
        InputError: A site or a kind was not collected, the sampler leaves no rows, or a number makes no sense.
    """

    def __init__(
        self,
        store: ActivationStore,
        site: Site | str | Sequence[Site | str],
        sampler: Sampler = uniform.weights,
        *,
        batch_size: int,
        seed: int = 0,
        folds: Sequence[str] = TRAINING_FOLDS,
        last_fraction: float = 0.25,
        kinds: Collection[str] = KINDS,
        rank: int = 0,
        world: int = 1,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        _check(batch_size, last_fraction, rank, world)
        sections = sections_of(store, kinds)
        strata = store.strata(folds, sections)
        pools = make_pools(store, strata, folds, sections)
        weights = _pool_weights(sampler(strata), [(pool.stratum, pool.is_last) for pool in pools], last_fraction)
        pools = [pool for pool, weight in zip(pools, weights, strict=True) if weight > 0]
        self.n_rows = sum(pool.n_rows for pool in pools)
        self.batch_size = batch_size
        size, window = piece_shape(pools, row_bytes(store), memory_bytes)
        orders = [PoolOrder(pool.n_rows, size, (seed, i), window=window) for i, pool in enumerate(pools)]
        self._draws = Draws(orders, weights[weights > 0], batch_size, seed)
        self._is_one = isinstance(site, Site | str)
        sites = [site] if isinstance(site, Site | str) else site
        self._sources = [open_source(store, one, pools, orders, memory_bytes) for one in sites]
        self._rank, self._world = rank, world
        self._identity = {"batch_size": batch_size, "seed": seed, "rows": [pool.n_rows for pool in pools]}
        self._place = self._draws.place  # after the last batch that was handed out
        self._ahead: deque[Future[tuple[np.ndarray, Place]]] = deque()
        self._reader: ThreadPoolExecutor | None = None
        self._process = 0  # that the reader is a thread of

    def __iter__(self) -> Iterator[Tensor]:
        worker = get_worker_info()
        if worker is not None and worker.num_workers > 1:
            raise InputError(
                "several workers would each give the same rows; a stream reads ahead itself: num_workers=0"
            )
        return self

    def __next__(self) -> Tensor:
        if self._reader is None or self._process != os.getpid():  # a fork has no threads
            self._ahead.clear()
            self._draws.go_to(self._place)
            self._reader, self._process = ThreadPoolExecutor(1, "rows"), os.getpid()
        if len(self._ahead) <= AHEAD // 2:  # several at once: waking the thread holds up a small step
            while len(self._ahead) <= AHEAD:
                self._ahead.append(self._reader.submit(self._prepare))
        rows, self._place = self._ahead[0].result()  # where this raises, it does so again
        self._ahead.popleft()
        return torch.from_numpy(rows)

    def close(self) -> None:
        """End the thread and let go of what it has read; the next batch starts it again."""
        if self._reader is not None and self._process == os.getpid():
            self._reader.shutdown(cancel_futures=True)
        self._reader = None

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream is, as plain numbers: after the batch that it gave last."""
        return {"batches": self._place.batches, "drawn": list(self._place.drawn), **self._identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where the stream was that gave this state; it may have had another number of processes.

        Raises:
            InputError: That stream had another batch size, seed or data, so that its place has no meaning here.
        """
        for name, value in self._identity.items():
            if state[name] != value:
                raise InputError(f"cannot resume the rows' order: {name} was {state[name]} and is now {value}")
        self.close()
        self._place = Place(int(state["batches"]), tuple(map(int, state["drawn"])))

    def _prepare(self) -> tuple[np.ndarray, Place]:
        """Read the next batch, or this process's part of it."""
        ids, lanes = self._draws.next()
        if self._world > 1:
            ids = ids[lanes % self._world == self._rank]
        rows = [source.rows(ids) for source in self._sources]
        several = np.stack(rows) if len(rows) > 1 else rows[0][None]  # a copy less
        return rows[0] if self._is_one else several, self._draws.place


def _check(batch_size: int, last_fraction: float, rank: int, world: int) -> None:
    if batch_size < 1:
        raise InputError(f"sae.batch_size={batch_size} is not a positive number of rows")
    if not 0 <= last_fraction <= 1:
        raise InputError(f"sampler.last_fraction={last_fraction} is not between 0 and 1")
    if not 0 <= rank < world <= LANES or LANES % world:
        raise InputError(f"a stream serves 1, 2, 4, 8 or 16 processes, not number {rank} of {world}")
    if world > 1 and batch_size < MIN_ROWS_PER_RANK * world:
        least = MIN_ROWS_PER_RANK * world
        raise InputError(f"sae.batch_size={batch_size} is too small for {world} processes; use {least} or more")


def _pool_weights(weights: np.ndarray, pools: Sequence[tuple[int, bool]], last_fraction: float) -> np.ndarray:
    """Share each stratum's weight between its last positions and its other rows; one alone gets all of it."""
    share = np.array([last_fraction if is_last else 1 - last_fraction for _, is_last in pools])
    stratum = np.array([number for number, _ in pools], dtype=np.int64)
    alone = np.bincount(stratum)[stratum] == 1
    return weights[stratum] * np.where(alone, 1.0, share)
