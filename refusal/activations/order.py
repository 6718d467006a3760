"""In which order a pool of rows is drawn: each once, then anew; in lanes, so that processes can share the reading.

A pool is what is drawn alike: the last positions of a stratum, or its other rows. Its rows are dealt to 16
lanes as runs of equal length (to a row). The draws take a row from every lane in turn, in a new order each turn,
so that after as many draws as there are rows each was drawn exactly once. A lane goes through its run some pieces
(``window``) at a time, the pieces in random order and the rows of a window in random order: a reader needs to hold
one window a lane. Lanes begin new windows at different times, so that they are read one after the other and not
all at once. Everything follows from the seed and the number of the draw, so a position in the order is one integer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LANES = 16
ROUND_DRAWS = 1024  # a small pool's order is made for several epochs at once


class PoolOrder:
    """The order of one pool.

    Args:
        n_rows: Number of rows in the pool.
        piece_rows: Greatest number of rows in a piece.
        seed: What the order follows from.
        window: How many of a lane's pieces are mixed.
    """

    def __init__(self, n_rows: int, piece_rows: int, seed: Sequence[int], *, window: int = 1) -> None:
        self.n_rows = n_rows
        self.n_turns = -(-n_rows // LANES)
        self.last_turn = n_rows - (self.n_turns - 1) * LANES  # lanes that have a row in the last turn
        sizes = np.where(np.arange(LANES) < self.last_turn, self.n_turns, self.n_turns - 1)
        self.starts = np.concatenate([[0], np.cumsum(sizes)])[:LANES]
        self.piece_rows, self.window = min(piece_rows, self.n_turns), window
        self._seed = tuple(seed)
        self._epochs = max(1, ROUND_DRAWS // n_rows)
        self._round = -1
        self._rows = np.empty(0, dtype=np.int32)

    def rows(self, first: int, count: int) -> np.ndarray:
        """Return the rows of the draws ``first`` to ``first + count - 1``, int32 [count] in 0..n_rows-1."""
        size = self._epochs * self.n_rows
        parts = []
        while count > 0:
            number, offset = divmod(first, size)
            if number != self._round:
                self._round, self._rows = number, self._make(number)
            part = self._rows[offset : offset + count]
            parts.append(part)
            first, count = first + len(part), count - len(part)
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)

    def lanes(self, rows: np.ndarray) -> np.ndarray:
        """Return the lane to which each row belongs."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def pieces(self) -> list[tuple[int, int, int]]:
        """Return (lane, first row, stop row) of every piece, in the order of the rows."""
        stops = [*self.starts[1:].tolist(), self.n_rows]
        return [
            (lane, start, min(start + self.piece_rows, stop))
            for lane, stop in enumerate(stops)
            for start in range(int(self.starts[lane]), stop, self.piece_rows)
        ]

    def _make(self, number: int) -> np.ndarray:
        """Make the order of one round of epochs, int32 [epochs * n_rows]."""
        rng = np.random.default_rng([*self._seed, number])
        shape = (self._epochs, self.n_turns, LANES)
        n_pieces = -(-self.n_turns // self.piece_rows)
        piece_rank = rng.random((self._epochs, n_pieces, LANES)).argsort(1).argsort(1)
        late = np.arange(LANES) * self.window // LANES if n_pieces > self.window else 0
        windows = (piece_rank + late) // self.window
        key = windows.repeat(self.piece_rows, axis=1)[:, : self.n_turns] + rng.random(shape)
        key[:, -1, self.last_turn :] = np.inf  # lanes without a row there: sorted to the last turn, cut off below
        rows = self.starts + key.argsort(axis=1)
        turn = rng.random(shape)
        turn[:, -1, self.last_turn :] = np.inf
        rows = np.take_along_axis(rows, turn.argsort(axis=2), axis=2)
        return rows.reshape(self._epochs, -1)[:, : self.n_rows].reshape(-1).astype(np.int32)
