"""The rows of one site, numbered pool by pool: held in memory if they fit, else read from disk piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from refusal.activations.order import LANES, PoolOrder
from refusal.activations.samplers import Stratum
from refusal.activations.shard import CHUNK_ROWS, Shard
from refusal.activations.store import ActivationStore
from refusal.models.sites import Site

MEMORY_BYTES = 1 << 30  # a site's rows are held up to this size; beyond it, the pieces that are open fit in it


@dataclass(frozen=True)
class Pool:
    """Rows that are drawn alike: runs of rows in some shards."""

    stratum: int
    is_last: bool
    runs: tuple[tuple[Shard, int, int], ...]

    @property
    def n_rows(self) -> int:
        """Number of its rows."""
        return sum(stop - start for _, start, stop in self.runs)


class RowSource(Protocol):
    """Rows by their number."""

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows [n, d_model] with these numbers [n], in float32."""
        ...


def make_pools(store: ActivationStore, strata: Sequence[Stratum], folds: Sequence[str]) -> list[Pool]:
    """Return two pools a stratum, its last positions and its other rows; those without rows are left out."""
    pools = []
    for number, stratum in enumerate(strata):
        shards = [
            shard
            for shard in store.shards
            if shard.fold in folds and (shard.category, shard.split) == (stratum.category, stratum.split)
        ]
        last = tuple((shard, 0, shard.n_prompts) for shard in shards if shard.n_prompts)
        rest = tuple((shard, shard.n_prompts, shard.n_rows) for shard in shards if shard.n_rows > shard.n_prompts)
        pools += [Pool(number, is_last, runs) for is_last, runs in ((True, last), (False, rest)) if runs]
    return pools


def piece_rows(n_pools: int, d_model: int, memory_bytes: int = MEMORY_BYTES) -> int:
    """Return the greatest size of a piece, such that one piece of every lane of every pool fits in memory."""
    return int(np.clip(memory_bytes // (n_pools * LANES * d_model * 4), 1, CHUNK_ROWS))


def open_source(
    store: ActivationStore,
    site: Site | str,
    pools: Sequence[Pool],
    orders: Sequence[PoolOrder],
    memory_bytes: int = MEMORY_BYTES,
) -> RowSource:
    """Return the rows of the pools at a site, from memory where they fit in ``memory_bytes``."""
    store.check_site(site)
    n_rows = sum(pool.n_rows for pool in pools)
    if n_rows * store.d_model * 4 <= memory_bytes:
        return MemoryRows(store, site, pools)
    return DiskRows(store, site, pools, orders)


class MemoryRows:
    """All rows, read once."""

    def __init__(self, store: ActivationStore, site: Site | str, pools: Sequence[Pool]) -> None:
        self._data = np.empty((sum(pool.n_rows for pool in pools), store.d_model), dtype=np.float32)
        shards: dict[Shard, list[tuple[int, int, int]]] = {}
        number = 0
        for pool in pools:
            for shard, start, stop in pool.runs:
                shards.setdefault(shard, []).append((number, start, stop))
                number += stop - start
        for shard, runs in shards.items():  # each file is opened once
            values = store.read_rows(shard, site, 0, shard.n_rows)
            for number, start, stop in runs:
                self._data[number : number + stop - start] = values[start:stop]

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows with these numbers."""
        return self._data.take(ids, axis=0)


class DiskRows:
    """Rows read piece by piece; of every lane of every pool the piece in use is held."""

    def __init__(
        self, store: ActivationStore, site: Site | str, pools: Sequence[Pool], orders: Sequence[PoolOrder]
    ) -> None:
        self._store, self._site, self._pools = store, site, pools
        self._pieces: list[tuple[int, int, int, int]] = []  # pool, lane, first row, stop row; counted within the pool
        self._first: list[int] = []  # number of each piece's first row
        base = 0
        for i, (pool, order) in enumerate(zip(pools, orders, strict=True)):
            for lane, start, stop in order.pieces():
                self._pieces.append((i, lane, start, stop))
                self._first.append(base + start)
            base += pool.n_rows
        self._numbers = np.array(self._first)
        self._open: dict[tuple[int, int], tuple[int, np.ndarray]] = {}

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows with these numbers; they come in the order of the lanes' pieces."""
        out = np.empty((len(ids), self._store.d_model), dtype=np.float32)
        piece_of = np.searchsorted(self._numbers, ids, side="right") - 1
        pieces, first_use, inverse, counts = np.unique(
            piece_of, return_index=True, return_inverse=True, return_counts=True
        )
        places = np.split(np.argsort(inverse, kind="stable"), np.cumsum(counts)[:-1])
        for i in np.argsort(first_use):  # as drawn, so that a piece is finished before its lane's next is read
            piece = int(pieces[i])
            out[places[i]] = self._piece(piece)[ids[places[i]] - self._first[piece]]
        return out

    def _piece(self, piece: int) -> np.ndarray:
        pool, lane, start, stop = self._pieces[piece]
        held = self._open.get((pool, lane))
        if held is None or held[0] != piece:
            held = self._open[pool, lane] = (piece, self._read(self._pools[pool], start, stop))
        return held[1]

    def _read(self, pool: Pool, start: int, stop: int) -> np.ndarray:
        """Read rows start..stop of a pool, which may lie in several shards."""
        parts, base = [], 0
        for shard, first, last in pool.runs:
            here = slice(max(start - base, 0), min(stop - base, last - first))
            if here.start < here.stop:
                parts.append(self._store.read_rows(shard, self._site, first + here.start, first + here.stop))
            base += last - first
        return np.concatenate(parts) if len(parts) > 1 else parts[0]
