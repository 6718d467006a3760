from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from refusal.activations.order import LANES, PoolOrder

sizes = st.one_of(st.integers(1, 40), st.integers(41, 3000))
pieces, windows = st.integers(1, 50), st.integers(1, 4)


@settings(max_examples=30)
@given(n_rows=sizes, piece=pieces, window=windows, epoch=st.integers(0, 5), seed=st.integers(0, 2**31))
def test_every_epoch_draws_each_row_once(n_rows: int, piece: int, window: int, epoch: int, seed: int) -> None:
    rows = PoolOrder(n_rows, piece, (seed, 1), window=window).rows(epoch * n_rows, n_rows)
    assert sorted(rows.tolist()) == list(range(n_rows))


@settings(max_examples=60)
@given(n_rows=sizes, piece=pieces, cuts=st.lists(st.integers(0, 500), max_size=8))
def test_the_order_does_not_depend_on_how_it_is_asked_for(n_rows: int, piece: int, cuts: list[int]) -> None:
    whole = PoolOrder(n_rows, piece, (3,)).rows(0, sum(cuts))
    order, parts, first = PoolOrder(n_rows, piece, (3,)), [], 0
    for count in cuts:
        parts.append(order.rows(first, count))
        first += count
    assert np.concatenate([[], *parts]).tolist() == whole.tolist()


@settings(max_examples=40)
@given(n_rows=sizes, piece=pieces, window=windows)
def test_a_lane_finishes_a_window_of_pieces_before_it_begins_another(n_rows: int, piece: int, window: int) -> None:
    order = PoolOrder(n_rows, piece, (0,), window=window)
    rows = order.rows(0, n_rows)
    lanes = order.lanes(rows)
    for lane in range(LANES):
        visited = ((rows[lanes == lane] - order.starts[lane]) // piece).tolist()
        spans = [(visited.index(number), len(visited) - visited[::-1].index(number)) for number in set(visited)]
        assert all(sum(a <= i < b for a, b in spans) <= window for i in range(len(visited)))
        assert window > 1 or sum(a != b for a, b in itertools.pairwise(visited)) == max(0, len(spans) - 1)


def test_the_pieces_of_a_window_are_mixed() -> None:
    order = PoolOrder(16 * 64, 8, (0,), window=4)
    first = order.rows(0, 16 * 32)
    visited = first[order.lanes(first) == 0] // 8
    assert len(set(visited.tolist())) == 4
    assert len(set(visited[:8].tolist())) > 2


@given(n_rows=sizes, piece=pieces)
def test_pieces_tile_the_rows_and_stay_in_their_lane(n_rows: int, piece: int) -> None:
    order = PoolOrder(n_rows, piece, (0,))
    covered = []
    for lane, start, stop in order.pieces():
        assert 0 < stop - start <= piece
        assert set(order.lanes(np.arange(start, stop)).tolist()) == {lane}
        covered += range(start, stop)
    assert covered == list(range(n_rows))


def test_a_turn_takes_one_row_of_every_lane_in_a_new_order() -> None:
    order = PoolOrder(64, 2, (0,))
    turns = order.lanes(order.rows(0, 64)).reshape(4, LANES)
    assert all(sorted(turn) == list(range(LANES)) for turn in turns.tolist())
    assert len({tuple(turn) for turn in turns.tolist()}) == 4


def test_epochs_and_seeds_differ() -> None:
    first, second = PoolOrder(50, 5, (0,)).rows(0, 100).reshape(2, 50)
    assert first.tolist() != second.tolist()
    assert first.tolist() != PoolOrder(50, 5, (1,)).rows(0, 50).tolist()


def test_lanes_begin_new_windows_at_different_times() -> None:
    order = PoolOrder(16 * 64 * 10, 10, (0,), window=8)  # 64 pieces a lane, in windows of 8
    rows = order.rows(0, order.n_rows)
    lanes = order.lanes(rows)
    pieces = (rows - order.starts[lanes]) // 10
    first = np.array([lane * 64 + piece for lane, piece in zip(lanes, pieces, strict=True)])
    opened = np.sort(np.unique(first, return_index=True)[1])  # the draws at which a piece is used first
    begun = np.histogram(opened[opened > 16 * 8], bins=64, range=(0, order.n_rows))[0]
    assert begun.max() <= 4 * begun.mean()  # all at once would be 8 times the mean
