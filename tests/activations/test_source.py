"""Which rows are read: the last positions, and the wanted kinds of tokens."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest

from refusal import InputError
from refusal.activations import source
from refusal.activations.order import PoolOrder
from refusal.activations.shard import SECTIONS, Shard
from refusal.activations.source import sections_of
from refusal.activations.store import ActivationStore
from refusal.activations.stream import RowStream
from refusal.models.sites import Site
from tests.activations.conftest import SITE, write_store

N_PROMPTS, PER_PROMPT = 12, 13  # a last position, and two of each other section


@pytest.fixture
def whole(tmp_path: Path) -> ActivationStore:
    """A store with rows in every section."""
    return write_store(tmp_path, [("hate", "safe", "train", N_PROMPTS, PER_PROMPT)], kinds=SECTIONS[1:])


def seen(store: ActivationStore, kinds: Collection[str], memory_bytes: int = 1 << 30) -> set[int]:
    """Return the numbers of the rows of an epoch and more."""
    stream = RowStream(store, SITE, batch_size=64, kinds=kinds, memory_bytes=memory_bytes)
    return {int(row) for _ in range(20) for row in next(stream)[:, 0]}


def rows_of(store: ActivationStore, *sections: str) -> set[int]:
    return {row for start, stop in store.shards[0].runs(sections) for row in range(start, stop)}


@pytest.mark.parametrize("memory_bytes", [1 << 30, 2000])
@pytest.mark.parametrize(
    ("kinds", "sections"),
    [
        (["instruction", "template"], ("last", "last_instruction", "instruction", "template")),
        (["template"], ("last", "template")),
        (["response", "special"], ("last", "response", "special")),
        ([], ("last",)),
        (["prefix", "prefix"], ("last", "prefix")),
    ],
)
def test_rows_of_the_wanted_kinds_come_and_no_others(
    whole: ActivationStore, kinds: list[str], sections: tuple[str, ...], memory_bytes: int
) -> None:
    assert seen(whole, kinds, memory_bytes) == rows_of(whole, *sections)


def test_bos_and_fixed_text_stay_out_by_default(whole: ActivationStore) -> None:
    stream = RowStream(whole, SITE, batch_size=64)
    assert stream.n_rows == N_PROMPTS * 7
    assert whole.strata(("train",), sections_of(whole, ["instruction", "template"]))[0].rows == stream.n_rows
    assert whole.strata(("train",))[0].rows == N_PROMPTS * PER_PROMPT


def test_a_kind_that_was_asked_for_may_have_no_rows(tmp_path: Path) -> None:
    store = write_store(tmp_path, [("hate", "safe", "train", 5, 1)])  # the only token is the last
    assert seen(store, ["instruction", "template"]) == set(range(5))


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (
            ["template", "answer"],
            "sampler.kinds: unknown 'answer'; one of prefix, special, instruction, template, resp",
        ),
        (
            ["response"],
            r"response rows, which the activations do not hold; set sampler.kinds to some of \[instruction, template\]",
        ),
        (["prefix"], "asks for prefix rows"),
        (["last"], "unknown 'last'"),
    ],
)
def test_a_kind_that_is_not_there_is_one_line(mixed: ActivationStore, kinds: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        RowStream(mixed, SITE, batch_size=64, kinds=kinds)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("memory_bytes", [1 << 30, 500])
def test_rows_are_decoded_whatever_they_are_stored_as(tmp_path: Path, dtype: str, memory_bytes: int) -> None:
    store = write_store(tmp_path, [("hate", "safe", "train", 20, 5)], dtype=dtype)
    batch = next(RowStream(store, SITE, batch_size=100, memory_bytes=memory_bytes))
    assert batch.dtype.is_floating_point
    assert batch.element_size() == 4
    assert set(batch[:, 1].tolist()) <= set(range(20))  # numbers of the prompts, which bfloat16 holds exactly


def pools_of(*sizes: int) -> list[source.Pool]:
    shard = Shard(Path("shard.h5"), "hate", "safe", "train", 1, max(sizes), (("last", max(sizes)),))
    return [source.Pool(0, True, ((shard, 0, size),)) for size in sizes]


def test_pieces_are_at_most_chunks_and_several_are_mixed_where_more_fit() -> None:
    lane = 8192 * 16  # bytes of a row of each lane of a pool
    large = 1_000_000
    assert source.piece_shape(pools_of(large), 8192, 1024 * lane) == (1024, 1)
    assert source.piece_shape(pools_of(large), 8192, 4096 * lane) == (1024, 4)
    assert source.piece_shape(pools_of(large), 8192, 4200 * lane) == (840, 5)  # even, so that all of the room is used
    assert source.piece_shape(pools_of(large, large), 8192, 1000 * lane) == (500, 1)
    assert source.piece_shape(pools_of(large, large, large), 8192, 0) == (1, 1)
    # 160 rows are 10 of a lane, so that two pools share the other 1,990
    assert source.piece_shape(pools_of(large, 160, large), 8192, 2000 * lane) == (995, 1)


@pytest.mark.parametrize("memory_bytes", [1 << 30, 3000])
def test_values_are_those_of_the_store(tmp_path: Path, memory_bytes: int) -> None:
    store = write_store(tmp_path, [("hate", "safe", "train", 30, 5), ("hate", "safe", "train", 20, 9)])
    stored = np.concatenate([store.read_rows(shard, SITE, 0, shard.n_rows) for shard in store.shards])
    batch = next(RowStream(store, SITE, batch_size=900, memory_bytes=memory_bytes)).numpy()
    assert np.array_equal(batch, stored[batch[:, 0].astype(int)])


@pytest.mark.parametrize("window", [1, 2, 4])
def test_each_piece_is_read_once_in_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    store = write_store(tmp_path, [("hate", "safe", "train", 100, 8), ("hate", "safe", "train", 60, 8)])
    pools = source.make_pools(store, store.strata(("train",)), ("train",), SECTIONS)
    orders = [PoolOrder(pool.n_rows, 5, (0,), window=window) for pool in pools]
    rows = source.DiskRows(store, SITE, pools, orders)
    read, reads = source._read, []

    def count(out: np.ndarray, site: Site | str, pool: source.Pool, start: int) -> None:
        if pool in pools:  # threads of other tests may still read
            reads.append(len(out))
        read(out, site, pool, start)

    monkeypatch.setattr(source, "_read", count)
    bases = np.cumsum([0, *(pool.n_rows for pool in pools)])
    for base, pool, order in zip(bases, pools, orders, strict=False):
        for ids in np.array_split(order.rows(0, pool.n_rows), 20):
            assert np.array_equal(rows.rows(base + ids)[:, 2], np.full(len(ids), pool.is_last))
    assert sorted(reads) == sorted(stop - start for order in orders for _, start, stop in order.pieces())
