from __future__ import annotations

import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refusal import InputError
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


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(
    n_prompts=st.integers(1, 60),
    per_prompt=st.integers(2, 9),
    batch_size=st.integers(1, 70),
    seed=st.integers(0, 1000),
    memory=st.sampled_from([1 << 30, 4000, 500]),
)
def test_each_row_of_a_pool_comes_once_before_any_comes_again(
    tmp_path_factory: pytest.TempPathFactory, n_prompts: int, per_prompt: int, batch_size: int, seed: int, memory: int
) -> None:
    store = write_store(tmp_path_factory.mktemp("store"), [("hate", "toxic", "train", n_prompts, per_prompt)])
    options = {"batch_size": batch_size, "seed": seed, "memory_bytes": memory}
    rows = take(stream_of(store, **options), 1 + 3 * n_prompts * per_prompt // batch_size)[:, 0].int()
    is_last = rows < n_prompts
    for pool, size in ((rows[is_last], n_prompts), (rows[~is_last], n_prompts * (per_prompt - 1))):
        for epoch in pool.split(size):
            assert len(set(epoch.tolist())) == len(epoch)
            assert len(epoch) < size or len(set(epoch.tolist())) == size


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_whatever_the_number_of_processes_their_batches_together_are_the_same(
    mixed: ActivationStore, world: int
) -> None:
    alone = stream_of(mixed, batch_size=256)
    ranks = [stream_of(mixed, batch_size=256, rank=rank, world=world) for rank in range(world)]
    for _ in range(150):  # past the end of a block of 128 batches
        parts = [next(rank)[:, 0] for rank in ranks]
        assert sorted(torch.cat(parts).tolist()) == sorted(next(alone)[:, 0].tolist())
        assert all(0.5 < len(part) * world / 256 < 1.7 for part in parts)


def test_ranks_never_share_a_row_of_an_epoch(mixed: ActivationStore) -> None:
    seen = [set(take(stream_of(mixed, rank=rank, world=4, batch_size=128), 2)[:, 0].tolist()) for rank in range(4)]
    assert sum(map(len, seen)) == len(set.union(*seen))  # lanes own their rows for good


@pytest.mark.parametrize(
    ("memory_bytes", "done"), [(1 << 30, 0), (1 << 30, 1023), (1 << 30, 1024), (1 << 30, 1500), (5000, 0), (5000, 77)]
)
def test_a_resumed_stream_goes_on_with_the_very_next_rows(mixed: ActivationStore, done: int, memory_bytes: int) -> None:
    first = stream_of(mixed, memory_bytes=memory_bytes)
    for _ in range(done):
        next(first)
    state = json.loads(json.dumps(first.state_dict()))
    second = stream_of(mixed, memory_bytes=memory_bytes)
    next(second)
    second.load_state_dict(state)
    for _ in range(30):
        assert torch.equal(next(first), next(second))


def test_a_state_moves_to_another_number_of_processes(mixed: ActivationStore) -> None:
    first = stream_of(mixed, batch_size=64)
    take(first, 9)
    ranks = [stream_of(mixed, batch_size=64, rank=rank, world=2) for rank in range(2)]
    for rank in ranks:
        rank.load_state_dict(first.state_dict())
    parts = torch.cat([next(rank)[:, 0] for rank in ranks])
    assert sorted(parts.tolist()) == sorted(next(first)[:, 0].tolist())


def test_a_state_of_another_stream_is_refused(mixed: ActivationStore) -> None:
    with pytest.raises(InputError, match="batch_size was 32 and is now 16"):
        stream_of(mixed, batch_size=16).load_state_dict(stream_of(mixed).state_dict())


def test_rows_from_disk_come_in_the_order_of_rows_from_memory(tmp_path: Path) -> None:
    layout = [(category, "toxic", fold, 70, 7) for category in ("hate", "privacy") for fold in ("calibration", "train")]
    store = write_store(tmp_path, layout)
    # as many bytes as all rows need less one: not held in memory, yet the pieces are as long as before
    held, read = (stream_of(store, memory_bytes=4 * 4 * 1960 - less) for less in (0, 1))
    assert isinstance(held._source, MemoryRows)
    assert isinstance(read._source, DiskRows)
    assert torch.equal(take(held, 200), take(read, 200))


def test_memory_for_rows_from_disk_is_bounded(tmp_path: Path) -> None:
    store = write_store(tmp_path, [("hate", "toxic", "train", 900, 10)])
    stream = stream_of(store, memory_bytes=32_000, last_fraction=0.1)
    most = 0
    for _ in range(300):
        stream._prepare()  # what its thread does
        assert isinstance(stream._source, DiskRows)
        most = max(most, sum(rows.nbytes for lane in stream._source._open.values() for rows in lane.values()))
    assert 16_000 < most <= 32_000  # 9,000 rows of 16 bytes would be 144,000


def test_shares_are_as_stated(mixed: ActivationStore) -> None:
    sampler = partial(weighted.weights, toxic_fraction=0.7)
    rows = take(stream_of(mixed, sampler=sampler, last_fraction=0.4), 1000)
    toxic = np.isin(rows[:, 3].numpy(), [1, 3, 5])
    # 32,000 rows: three standard deviations of a share are under 0.01
    assert toxic.mean() == pytest.approx(0.7, abs=0.01)
    assert rows[:, 2].mean().item() == pytest.approx(0.4, abs=0.01)


def test_only_the_asked_folds_and_strata_come(mixed: ActivationStore) -> None:
    stream = stream_of(mixed, sampler=toxic_only.weights)
    assert set(take(stream, 100)[:, 3].tolist()) == {1, 3, 5}
    assert stream.n_rows == 3 * 4 + 7 * 5 + 30 * 4
    assert set(take(stream_of(mixed, folds=("heldout",)), 20)[:, 3].tolist()) == {6}


@pytest.mark.parametrize("last_fraction", [0.0, 1.0])
def test_last_positions_alone_or_left_out(mixed: ActivationStore, last_fraction: float) -> None:
    assert set(take(stream_of(mixed, last_fraction=last_fraction), 50)[:, 2].tolist()) == {last_fraction}


def test_the_seed_decides_the_order(mixed: ActivationStore) -> None:
    assert torch.equal(take(stream_of(mixed, seed=5), 20), take(stream_of(mixed, seed=5), 20))
    assert not torch.equal(take(stream_of(mixed, seed=5), 20), take(stream_of(mixed, seed=6), 20))


def test_a_batch_mixes_prompts_like_a_true_shuffle(tmp_path: Path) -> None:
    store = write_store(tmp_path, [("hate", "safe", "train", 400, 10)])
    # 64 rows of 4,000 without replacement, 10 rows a prompt: a prompt is in the batch with probability
    # 1 - C(3990, 64) / C(4000, 64) = 0.149, so 59.5 of 400 prompts are
    for memory_bytes in (1 << 30, 10_000):
        stream = stream_of(store, sampler=uniform.weights, batch_size=64, last_fraction=0.1, memory_bytes=memory_bytes)
        distinct = [len(set(next(stream)[:, 1].tolist())) for _ in range(60)]
        assert np.mean(distinct) == pytest.approx(59.5, abs=1.0)
        whole = Counter(take(stream, 500)[:, 1].tolist())
        assert max(whole.values()) - min(whole.values()) < 40  # 80 times each on average


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
