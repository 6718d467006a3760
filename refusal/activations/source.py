"""The rows of one site, numbered pool by pool: held in memory if they fit, else read from disk piece by piece.

Rows are held as they are stored and decoded when they are drawn, so that twice as many fit in bfloat16.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from refusal.activations.encoding import DTYPES, decode
from refusal.activations.kinds import check_kinds, kept_kinds
from refusal.activations.order import LANES, PoolOrder
from refusal.activations.samplers import Stratum
from refusal.activations.shard import CHUNK_ROWS, SECTIONS, Shard, dataset, open_shard
from refusal.activations.store import ActivationStore
from refusal.models.sites import Site

LAST = "last"
KINDS = ("instruction", "template")
"""Kinds of tokens that train by default: BOS, whose norm ruins an autoencoder, and fixed text stay out."""
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


def sections_of(store: ActivationStore, kinds: Collection[str]) -> list[str]:
    """Return the sections of a store's shards that train: the last positions, and the rows of these kinds.

    Raises:
        InputError: There is no such kind, or the collection left it out.
    """
    check_kinds(kinds, kept_kinds(store.manifest["positions"], store.manifest["response_positions"]))
    wanted = {LAST, *kinds, *(["last_instruction"] if "instruction" in kinds else [])}
    return [name for name in SECTIONS if name in wanted]


def make_pools(
    store: ActivationStore, strata: Sequence[Stratum], folds: Sequence[str], sections: Sequence[str]
) -> list[Pool]:
    """Return two pools a stratum, its last positions and its other rows; those without rows are left out."""
    others = [name for name in sections if name != LAST]
    pools = []
    for number, stratum in enumerate(strata):
        shards = [
            shard
            for shard in store.shards
            if shard.fold in folds and (shard.category, shard.split) == (stratum.category, stratum.split)
        ]
        last, rest = (tuple((s, *run) for s in shards for run in s.runs(names)) for names in ([LAST], others))
        pools += [Pool(number, is_last, runs) for is_last, runs in ((True, last), (False, rest)) if runs]
    return pools


def piece_shape(pools: Sequence[Pool], row_bytes: int, memory_bytes: int) -> tuple[int, int]:
    """Return the most rows of a piece, up to a chunk's, and how many pieces a lane mixes, so that what is held fits."""
    room = memory_bytes // (LANES * row_bytes)  # rows, of one lane of every pool
    lane_rows = 0
    needs = sorted(-(-pool.n_rows // LANES) for pool in pools)
    for i, needed in enumerate(needs):  # small pools leave to the others what they do not need
        lane_rows = min(needed, room // (len(needs) - i))
        room -= lane_rows
    window = max(1, -(-lane_rows // CHUNK_ROWS))
    return max(1, lane_rows // window), window  # even pieces, so that none of the room is left over


def row_bytes(store: ActivationStore) -> int:
    """Return the size of a row as it is stored."""
    return store.d_model * DTYPES[store.dtype].itemsize


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
    if n_rows * row_bytes(store) <= memory_bytes:
        return MemoryRows(store, site, pools)
    return DiskRows(store, site, pools, orders)


class MemoryRows:
    """All rows, read once."""

    def __init__(self, store: ActivationStore, site: Site | str, pools: Sequence[Pool]) -> None:
        self._dtype = store.dtype
        self._data = np.empty((sum(pool.n_rows for pool in pools), store.d_model), dtype=DTYPES[store.dtype])
        base = 0
        for pool in pools:
            _read(self._data[base : base + pool.n_rows], site, pool, 0)
            base += pool.n_rows

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows with these numbers."""
        return decode(self._data.take(ids, axis=0), self._dtype)


class DiskRows:
    """Rows read piece by piece; of every lane of every pool the pieces in use are held."""

    def __init__(
        self, store: ActivationStore, site: Site | str, pools: Sequence[Pool], orders: Sequence[PoolOrder]
    ) -> None:
        self._store, self._site, self._pools = store, site, pools
        self._windows = [order.window for order in orders]
        self._pieces: list[tuple[int, int, int, int]] = []  # pool, lane, first row, stop row; counted within the pool
        self._first: list[int] = []  # number of each piece's first row
        base = 0
        for i, (pool, order) in enumerate(zip(pools, orders, strict=True)):
            for lane, start, stop in order.pieces():
                self._pieces.append((i, lane, start, stop))
                self._first.append(base + start)
            base += pool.n_rows
        self._numbers = np.array(self._first)
        self._open: dict[tuple[int, int], dict[int, np.ndarray]] = {}

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows with these numbers; they come in the order of the lanes' pieces."""
        out = np.empty((len(ids), self._store.d_model), dtype=DTYPES[self._store.dtype])
        piece_of = np.searchsorted(self._numbers, ids, side="right") - 1
        pieces, first_use, inverse, counts = np.unique(
            piece_of, return_index=True, return_inverse=True, return_counts=True
        )
        places = np.split(np.argsort(inverse, kind="stable"), np.cumsum(counts)[:-1])
        for i in np.argsort(first_use):  # as drawn, so that a window is finished before its lane's next is read
            piece = int(pieces[i])
            out[places[i]] = self._piece(piece)[ids[places[i]] - self._first[piece]]
        return decode(out, self._store.dtype)

    def _piece(self, piece: int) -> np.ndarray:
        pool, lane, start, stop = self._pieces[piece]
        held = self._open.setdefault((pool, lane), {})
        if piece not in held and len(held) == self._windows[pool]:
            del held[next(iter(held))]  # the one used longest ago: it is of an earlier window, so it is finished
        rows = held.pop(piece, None)
        if rows is None:
            rows = np.empty((stop - start, self._store.d_model), dtype=DTYPES[self._store.dtype])
            _read(rows, self._site, self._pools[pool], start)
        held[piece] = rows
        return rows


def _read(out: np.ndarray, site: Site | str, pool: Pool, start: int) -> None:
    """Fill ``out`` with a pool's rows from ``start`` on, as they are stored; they may lie in several shards."""
    base, stop = 0, start + len(out)
    for shard, first, last in pool.runs:
        here = slice(max(start - base, 0), min(stop - base, last - first))
        if here.start < here.stop:
            place = np.s_[base + here.start - start : base + here.stop - start]
            with open_shard(shard.path) as file:
                values = dataset(file, f"activations/{site}")
                values.read_direct(out, np.s_[first + here.start : first + here.stop], place)
        base += last - first
