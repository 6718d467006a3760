from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from refusal import InputError
from refusal.activations import draws, source
from refusal.activations.samplers import toxic_only, uniform, weighted
from refusal.activations.source import DiskRows, MemoryRows
from refusal.activations.store import ActivationStore
from refusal.activations.stream import RowStream
from tests.activations.conftest import SITE, write_store


def stream_of(store: ActivationStore, **changes: Any) -> RowStream:
    options: dict[str, Any] = {"batch_size": 32, "seed": 0} | changes
    return RowStream(store, SITE, options.pop("sampler", weighted.weights), **options)


def take(stream: RowStream, n_batches: int) -> torch.Tensor:
    return torch.cat([next(stream) for _ in range(n_batches)])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ActivationStore]:
    """A store for laws that are tried on many streams, with pieces and blocks so short that they see many."""
    layout = [("hate", split, fold, 40, 10) for split in ("safe", "toxic") for fold in ("calibration", "train")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "CHUNK_ROWS", 8)
        patch.setattr(draws, "BLOCK_ROWS", 1024)
        yield write_store(tmp_path_factory.mktemp("store"), layout)


memories = st.sampled_from([1 << 30, 17_000, 9000])
"""Held in memory; read from disk, two pieces of a lane mixed; one."""
worlds = st.sampled_from([1, 2, 4, 8])


@settings(max_examples=15)
@given(
    shards=st.lists(st.tuples(st.integers(1, 30), st.integers(2, 9)), min_size=1, max_size=3),
    batch_size=st.integers(1, 70),
    seed=st.integers(0, 1000),
    memory=st.sampled_from([1 << 30, 2000]),
)
def test_each_row_of_a_pool_comes_once_before_any_comes_again(
    tmp_path_factory: pytest.TempPathFactory, shards: list[tuple[int, int]], batch_size: int, seed: int, memory: int
) -> None:
    layout = [("hate", "toxic", "train", *shard) for shard in shards]
    store = write_store(tmp_path_factory.mktemp("store"), layout)
    n_rows, n_last = sum(n * m for n, m in shards), sum(n for n, _ in shards)
    rows = take(stream_of(store, batch_size=batch_size, seed=seed, memory_bytes=memory), 1 + 3 * n_rows // batch_size)
    is_last = rows[:, 2] == 1
    for pool, size in ((rows[is_last, 0], n_last), (rows[~is_last, 0], n_rows - n_last)):
        for epoch in pool.split(size):
            assert len(set(epoch.tolist())) == len(epoch)


@settings(max_examples=15)
@given(toxic=st.floats(0.05, 0.95), last=st.floats(0, 1), seed=st.integers(0, 1000), memory=memories)
def test_shares_are_as_stated_within_what_chance_allows(
    store: ActivationStore, toxic: float, last: float, seed: int, memory: int
) -> None:
    sampler = partial(weighted.weights, toxic_fraction=toxic)
    stream = stream_of(store, sampler=sampler, last_fraction=last, seed=seed, memory_bytes=memory)
    rows = take(stream, 60).numpy()
    is_toxic = rows[:, 3] >= 2
    for found, share in ((is_toxic, toxic), (rows[:, 2], last), (is_toxic * rows[:, 2], toxic * last)):
        # six standard deviations of a binomial share
        assert abs(found.mean() - share) <= 6 * np.sqrt(share * (1 - share) / len(rows))


@settings(max_examples=10)
@given(seed=st.integers(0, 1000), other=st.integers(0, 1000), memory=memories)
def test_the_seed_decides_the_order(store: ActivationStore, seed: int, other: int, memory: int) -> None:
    first, again, third = (take(stream_of(store, seed=s, memory_bytes=memory), 20) for s in (seed, seed, other))
    assert torch.equal(first, again)
    assert torch.equal(first, third) == (seed == other)


@settings(max_examples=10)
@given(world=worlds, batch_size=st.integers(256, 500), n_batches=st.integers(1, 6), memory=memories)
def test_whatever_the_number_of_processes_their_batches_together_are_the_same(
    store: ActivationStore, world: int, batch_size: int, n_batches: int, memory: int
) -> None:
    alone = stream_of(store, batch_size=batch_size, memory_bytes=memory)
    ranks = [stream_of(store, batch_size=batch_size, rank=i, world=world, memory_bytes=memory) for i in range(world)]
    for _ in range(n_batches):
        parts = [next(rank)[:, 0] for rank in ranks]
        assert sorted(torch.cat(parts).tolist()) == sorted(next(alone)[:, 0].tolist())
        assert all(0.3 < len(part) * world / batch_size < 2 for part in parts)


def test_ranks_never_share_a_row_of_an_epoch(mixed: ActivationStore) -> None:
    seen = [set(take(stream_of(mixed, rank=rank, world=4, batch_size=128), 2)[:, 0].tolist()) for rank in range(4)]
    assert sum(map(len, seen)) == len(set.union(*seen))  # lanes own their rows for good


@settings(max_examples=10)
@given(
    done=st.integers(0, 9),  # a block has 4 batches of 256
    skipped=st.integers(0, 3),
    before=worlds,
    after=worlds,
    memory=memories,
)
def test_a_resumed_stream_goes_on_with_the_very_next_rows_whatever_the_number_of_processes(
    store: ActivationStore, done: int, skipped: int, before: int, after: int, memory: int
) -> None:
    options = {"batch_size": 256, "memory_bytes": memory}
    whole, saved = stream_of(store, **options), stream_of(store, **options, rank=before - 1, world=before)
    for _ in range(done):
        next(whole)
        next(saved)
    state = json.loads(json.dumps(saved.state_dict()))
    assert state["batches"] == done  # although more are read
    ranks = [stream_of(store, **options, rank=rank, world=after) for rank in range(after)]
    for rank in ranks:
        for _ in range(skipped):
            next(rank)
        rank.load_state_dict(state)
    for _ in range(3):
        parts = [next(rank) for rank in ranks]
        if after == 1:
            assert torch.equal(parts[0], next(whole))
        else:
            assert sorted(torch.cat(parts)[:, 0].tolist()) == sorted(next(whole)[:, 0].tolist())


def test_a_state_of_another_stream_is_refused(mixed: ActivationStore) -> None:
    with pytest.raises(InputError, match="batch_size was 32 and is now 16"):
        stream_of(mixed, batch_size=16).load_state_dict(stream_of(mixed).state_dict())


def test_rows_from_disk_come_in_the_order_of_rows_from_memory(tmp_path: Path) -> None:
    layout = [(category, "toxic", fold, 70, 7) for category in ("hate", "privacy") for fold in ("calibration", "train")]
    store = write_store(tmp_path, layout)
    # as many bytes as all rows need less one: not held in memory, yet the pieces are as long as before
    held, read = (stream_of(store, memory_bytes=4 * 4 * 1960 - less) for less in (0, 1))
    assert isinstance(held._sources[0], MemoryRows)
    assert isinstance(read._sources[0], DiskRows)
    assert torch.equal(take(held, 200), take(read, 200))


def test_memory_for_rows_from_disk_is_bounded(tmp_path: Path) -> None:
    store = write_store(tmp_path, [("hate", "toxic", "train", 900, 10)])
    stream = stream_of(store, memory_bytes=32_000, last_fraction=0.1)
    assert isinstance(stream._sources[0], DiskRows)
    assert 16_000 < stream._sources[0]._data.nbytes <= 32_000  # 9,000 rows of 16 bytes would be 144,000


def test_only_the_asked_folds_and_strata_come(mixed: ActivationStore) -> None:
    stream = stream_of(mixed, sampler=toxic_only.weights)
    assert set(take(stream, 100)[:, 3].tolist()) == {1, 3, 5}
    assert stream.n_rows == 3 * 4 + 7 * 5 + 30 * 4
    assert set(take(stream_of(mixed, folds=("heldout",)), 20)[:, 3].tolist()) == {6}


@pytest.mark.parametrize("last_fraction", [0.0, 1.0])
def test_last_positions_alone_or_left_out(mixed: ActivationStore, last_fraction: float) -> None:
    assert set(take(stream_of(mixed, last_fraction=last_fraction), 50)[:, 2].tolist()) == {last_fraction}


def test_a_batch_mixes_prompts_like_a_true_shuffle(tmp_path: Path) -> None:
    store = write_store(tmp_path, [("hate", "safe", "train", 400, 10)])
    # 64 rows of 4,000 without replacement, 10 rows a prompt: a prompt is in the batch with probability
    # 1 - C(3990, 64) / C(4000, 64) = 0.149, so 59.5 of 400 prompts are
    for memory_bytes in (1 << 30, 10_000):
        stream = stream_of(store, sampler=uniform.weights, batch_size=64, last_fraction=0.1, memory_bytes=memory_bytes)
        distinct = [len(set(next(stream)[:, 1].tolist())) for _ in range(60)]
        assert np.mean(distinct) == pytest.approx(59.5, abs=1.0)
        whole = Counter(take(stream, 200)[:, 1].tolist())
        assert max(whole.values()) - min(whole.values()) < 20  # 32 times each on average


@pytest.mark.slow
def test_a_batch_of_few_pieces_of_many_shards_still_mixes_their_prompts(tmp_path: Path) -> None:
    store = write_store(tmp_path, [("hate", "safe", "train", 128, 32)] * 20)
    # pieces of 1,024 rows, two of each of the 16 lanes at a time, of 80 in all
    stream = stream_of(store, sampler=uniform.weights, batch_size=1024, last_fraction=1 / 32, memory_bytes=1 << 20)
    assert isinstance(stream._sources[0], DiskRows)
    distinct = [len(set(next(stream)[:, 1].tolist())) for _ in range(12)]
    # a true shuffle's rows are of about 2560 * (1 - exp(-1024 / 2560)) prompts
    assert np.mean(distinct) == pytest.approx(844, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, r"sae\.batch_size=0"),
        ({"last_fraction": 1.5}, r"sampler\.last_fraction=1\.5"),
        ({"world": 3}, "1, 2, 4, 8 or 16"),
        ({"rank": 2, "world": 2}, "number 2 of 2"),
        ({"batch_size": 100, "world": 4}, "use 128 or more"),
        ({"folds": ("nowhere",)}, "leaves no rows"),
    ],
)
def test_what_makes_no_sense_is_one_line(mixed: ActivationStore, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        stream_of(mixed, **changes)
