from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal import InputError
from refusal.activations import plan
from refusal.activations.plan import batches, bytes_needed, check_disk, plan_shards, sample_rows, waves
from refusal.prompts.prompt import FOLDS, SPLITS, Prompt

prompt_lists = st.lists(
    st.builds(
        Prompt,
        id=st.just("0"),
        text=st.just(""),
        category=st.sampled_from(["hate", "privacy"]),
        split=st.sampled_from(SPLITS),
        fold=st.sampled_from(FOLDS),
    ),
    min_size=1,
    max_size=60,
)


@given(prompt_lists, st.integers(0, 5))
def test_every_prompt_is_in_one_shard_of_its_stratum_and_fold(prompts: list[Prompt], seed: int) -> None:
    shards = plan_shards(prompts, [3] * len(prompts), seed)
    assert sorted(chain.from_iterable(shard.prompts for shard in shards)) == list(range(len(prompts)))
    for shard in shards:
        for i in shard.prompts:
            assert (prompts[i].category, prompts[i].split, prompts[i].fold) == (shard.category, shard.split, shard.fold)
    assert len({shard.file for shard in shards}) == len(shards)
    assert [FOLDS.index(shard.fold) for shard in shards] == sorted(FOLDS.index(shard.fold) for shard in shards)
    assert [shard for wave in waves(shards) for shard in wave] == shards


def test_a_large_stratum_becomes_shards_of_at_least_65536_rows() -> None:
    prompts = [Prompt("0", "", "hate", "safe", "train")] * 5000
    n_rows = np.random.default_rng(0).integers(20, 60, 5000)
    shards = plan_shards(prompts, n_rows.tolist(), 0)
    sizes = [sum(n_rows[i] for i in shard.prompts) for shard in shards]
    assert len(sizes) == n_rows.sum() // 65_536 == 3
    assert min(sizes) > 65_536 - 60  # to a prompt


def test_names_of_categories_that_clash_in_a_file_name_do_not_clash() -> None:
    prompts = [Prompt("0", "", category, "safe", "train") for category in ("a/b", "a b", "../x")]
    files = [shard.file for shard in plan_shards(prompts, [1, 1, 1], 0)]
    assert len(set(files)) == 3
    assert all(Path(file).name == file and not file.startswith(".") for file in files)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 200))
def test_batches_hold_every_prompt_once_within_the_budget(lengths: list[int], budget: int) -> None:
    packed = batches(lengths, budget)
    assert sorted(chain.from_iterable(packed)) == list(range(len(lengths)))
    for batch in packed:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= budget
    longest = [lengths[batch[0]] for batch in packed]
    assert longest == sorted(longest, reverse=True)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(0, 600), st.integers(0, 3))
def test_a_sample_of_rows_keeps_those_that_it_has_to_keep(sizes: list[int], max_rows: int, seed: int) -> None:
    candidates = [np.arange(2, 2 + size) for size in sizes]
    always = [sorted({int(rows[len(rows) // 2]), int(rows[-1])}) for rows in candidates]
    if sum(sizes) > max_rows < sum(map(len, always)):
        with pytest.raises(InputError, match=r"collect\.max_rows"):
            sample_rows(candidates, always, max_rows, seed)
        return
    kept = sample_rows(candidates, always, max_rows, seed)
    assert sum(map(len, kept)) <= max(max_rows, 0)
    for rows, all_rows in zip(kept, candidates, strict=True):
        assert {all_rows[-1], all_rows[len(all_rows) // 2]} <= set(rows.tolist())
        assert set(rows.tolist()) <= set(all_rows.tolist())
        assert (np.diff(rows) > 0).all()
    if sum(sizes) <= max_rows:
        assert sum(map(len, kept)) == sum(sizes)


def test_the_disk_is_checked_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 1,000 rows x 3 sites x 8 numbers + 10 prompts x 2 layers x 2 x 8 numbers, 2 bytes each;
    # 14 bytes a row, 1 kB a prompt
    size = {"n_sites": 3, "n_layers": 2, "d_model": 8}
    needed = bytes_needed(1000, 10, **size, dtype="bfloat16", writes=True)
    assert needed == 2 * (24_000 + 320) + 14_000 + 10_240
    check_disk(tmp_path, needed)
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda _: type("Usage", (), {"free": needed}))
    with pytest.raises(InputError, match=r"need 0\.1 MB and .*collect\.max_rows"):
        check_disk(tmp_path, needed)
