"""The rows of one site, numbered pool by pool: held in memory if they fit, else read from disk piece by piece.

Rows are held as they are stored and decoded when they are drawn, so that twice as many fit in bfloat16.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple, Protocol

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
ABSENT = -1  # instead of a place in the array
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
    """Rows read piece by piece into one array, from which a batch is gathered at once.

    In it every lane has as many slots as it mixes pieces, and fills them in turn: what a piece takes the place of is of
    an earlier window, so it is finished.
    """

    def __init__(
        self, store: ActivationStore, site: Site | str, pools: Sequence[Pool], orders: Sequence[PoolOrder]
    ) -> None:
        self._dtype, self._site, self._pools = store.dtype, site, pools
        self._pieces: list[_Piece] = []
        self._slots: list[deque[int]] = []  # first rows of each lane's slots, the next to be filled at the left
        size = base = 0
        for pool, order in zip(pools, orders, strict=True):
            for _, pieces in groupby(order.pieces(), itemgetter(0)):
                spans = [(start, stop) for _, start, stop in pieces]
                self._pieces += [_Piece(pool, len(self._slots), base, start, stop) for start, stop in spans]
                n_slots = min(order.window, len(spans))
                self._slots.append(deque(size + i * order.piece_rows for i in range(n_slots)))
                size += n_slots * order.piece_rows
            base += pool.n_rows
        self._first = np.array([piece.base + piece.start for piece in self._pieces])  # number of each piece's first row
        self._place = np.full(len(self._pieces), ABSENT)  # where each piece begins in the array
        self._held: dict[int, int] = {}  # which piece is in a slot
        self._data = np.empty((size, store.d_model), dtype=DTYPES[store.dtype])

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows with these numbers; they come in the order of the lanes' pieces."""
        stored = np.empty((len(ids), self._data.shape[1]), dtype=self._data.dtype)
        piece = np.searchsorted(self._first, ids, side="right") - 1
        offset = ids - self._first[piece]
        todo = np.arange(len(ids))
        while len(todo):  # what is held is taken before a piece takes its place
            place = self._place[piece[todo]]
            here = todo[place != ABSENT]
            stored[here] = self._data[self._place[piece[here]] + offset[here]]
            todo = todo[place == ABSENT]
            self._read(piece[todo])
        return decode(stored, self._dtype)

    def _read(self, pieces: np.ndarray) -> None:
        """Read those of these pieces for which their lanes have slots, in the order in which they are used."""
        filled = Counter[int]()
        for number in dict.fromkeys(pieces.tolist()):
            piece = self._pieces[number]
            slots = self._slots[piece.lane]
            filled[piece.lane] += 1
            if filled[piece.lane] <= len(slots):
                self._place[self._held.get(slots[0], number)] = ABSENT
                _read(self._data[slots[0] : slots[0] + piece.stop - piece.start], self._site, piece.pool, piece.start)
                self._held[slots[0]], self._place[number] = number, slots[0]
                slots.rotate(-1)


class _Piece(NamedTuple):
    """A run of a lane's rows that is read at once."""

    pool: Pool
    lane: int
    """Counted over all pools."""
    base: int
    """Number of the pool's first row."""
    start: int
    """Its first row, counted within the pool."""
    stop: int


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
