"""The thread that reads ahead: its errors, its end, processes that are forked, and torch's DataLoader."""

from __future__ import annotations

import gc
import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from refusal import InputError
from refusal.activations.store import ActivationStore
from refusal.activations.stream import AHEAD, RowStream
from tests.activations.conftest import SITE, write_store


def stream_of(store: ActivationStore, **changes: Any) -> RowStream:
    return RowStream(store, SITE, batch_size=32, **changes)


def becomes_true(condition: Callable[[], bool]) -> bool:
    """Whether a condition holds within some seconds."""
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


def test_batches_are_read_before_they_are_asked_for_but_only_a_few(mixed: ActivationStore) -> None:
    stream = stream_of(mixed)
    next(stream)
    assert becomes_true(lambda: stream._draws.place.batches == 1 + AHEAD)
    time.sleep(0.05)
    assert stream._draws.place.batches == 1 + AHEAD
    assert stream.state_dict()["batches"] == 1


def test_the_thread_is_woken_for_several_batches_at_once(mixed: ActivationStore) -> None:
    stream = stream_of(mixed)
    drawn = []
    for _ in range(8):
        next(stream)
        assert becomes_true(lambda: all(batch.done() for batch in stream._ahead))
        drawn.append(stream._draws.place.batches)
    assert drawn == [5, 5, 5, 8, 8, 8, 11, 11]


def test_an_error_is_raised_where_the_rows_are_asked_for_and_loses_none(tmp_path: Path) -> None:
    store = write_store(tmp_path, [("hate", "toxic", "train", 300, 5)])
    whole, stream = (stream_of(store, memory_bytes=1000) for _ in range(2))
    shard = store.shards[0].path
    hidden = shard.rename(shard.with_suffix(".hidden"))
    for _ in range(2):
        with pytest.raises(InputError, match=r"there is no .*shard-0000"):
            next(stream)
    stream.close()
    hidden.rename(shard)
    assert torch.equal(next(stream), next(whole))


def test_no_thread_is_left_when_a_stream_is_closed_or_dropped(mixed: ActivationStore) -> None:
    before = threads()
    closed, dropped = stream_of(mixed), stream_of(mixed)
    next(closed)
    next(dropped)
    assert len(threads() - before) == 2
    closed.close()
    assert len(threads() - before) == 1
    del dropped
    gc.collect()
    assert becomes_true(lambda: not threads() - before)


def test_a_closed_stream_goes_on_where_it_was(mixed: ActivationStore) -> None:
    whole, stream = stream_of(mixed), stream_of(mixed)
    for _ in range(5):
        assert torch.equal(next(stream), next(whole))
        stream.close()


@pytest.mark.parametrize("memory_bytes", [1 << 30, 5000])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_data_loader_gives_the_stream_s_batches_from_a_process_of_its_own(
    mixed: ActivationStore, memory_bytes: int, method: str
) -> None:
    expected, stream = (stream_of(mixed, memory_bytes=memory_bytes) for _ in range(2))
    if method == "fork":  # while the parent's thread is at work, which the child has not
        assert torch.equal(next(stream), next(expected))
    context = multiprocessing.get_context(method)
    rows = iter(DataLoader(stream, batch_size=None, num_workers=1, multiprocessing_context=context))
    for _ in range(5):
        assert torch.equal(next(rows), next(expected))


def test_several_workers_of_a_data_loader_are_refused(mixed: ActivationStore) -> None:
    with pytest.raises(InputError, match="num_workers=0"):
        next(iter(DataLoader(stream_of(mixed), batch_size=None, num_workers=2, multiprocessing_context="fork")))
