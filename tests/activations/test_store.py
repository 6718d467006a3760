from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from refusal import InputError
from refusal.activations.store import ActivationStore, is_complete
from tests.activations.conftest import MIXED, SITE, write_store


def test_everything_comes_in_the_study_s_order(mixed: ActivationStore) -> None:
    prompts = mixed.prompts()
    assert len(prompts) == sum(count for _, _, _, count, _ in MIXED)
    assert prompts["index"].is_monotonic_increasing
    last = mixed.last(SITE)
    # a row's second number is its prompt's, as the id is in hexadecimal; its third says that it is a last position
    assert last[:, 1].tolist() == [int(prompt_id, 16) for prompt_id in prompts["id"]]
    assert (last[:, 2] == 1).all()


def test_strata_count_the_rows_of_the_folds(mixed: ActivationStore) -> None:
    strata = mixed.strata(("calibration", "train"))
    assert [tuple(stratum) for stratum in strata] == [
        ("privacy", "hard", 27),
        ("hate", "safe", 5 * 4 + 40 * 6),
        ("hate", "toxic", 3 * 4 + 7 * 5),
        ("privacy", "toxic", 120),
    ]
    assert [stratum.rows for stratum in mixed.strata(("heldout",))] == [44]


def test_chunks_are_runs_of_rows(tmp_path: Path) -> None:
    store = write_store(tmp_path, [("hate", "safe", "train", 300, 5)])
    (shard,) = store.shards
    assert shard.n_chunks == 2
    assert store.read_chunk(shard, 0, SITE).shape == (1024, 4)
    assert store.read_chunk(shard, 1, SITE)[:, 0].tolist() == list(range(1024, 1500))
    assert store.row_table(shard)["position"][:300].tolist() == [4] * 300


def test_bfloat16_is_read_as_float32(tmp_path: Path) -> None:
    store = write_store(tmp_path, [("hate", "safe", "train", 20, 5)], dtype="bfloat16")
    assert store.last(SITE).dtype == np.float32
    assert store.last(SITE)[::-1, 1].tolist() == list(range(20))


def test_what_is_absent_is_named(mixed: ActivationStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mlp_7 is not in .*; it holds mlp_0"):
        mixed.last("mlp_7")
    with pytest.raises(InputError, match=r"collect\.writes=true"):
        mixed.writes()
    with pytest.raises(InputError, match="no finished activations"):
        ActivationStore(tmp_path / "elsewhere")


def test_a_store_without_one_of_its_shards_is_not_complete(mixed: ActivationStore) -> None:
    assert is_complete(mixed.folder)
    mixed.shards[2].path.unlink()
    assert not is_complete(mixed.folder)
    with pytest.raises(InputError, match=r"there is no .*shard-0002\.h5"):
        mixed.prompts()


def test_a_damaged_shard_is_one_line(mixed: ActivationStore) -> None:
    path = mixed.shards[0].path
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"shard-0000\.h5 is damaged"):
        mixed.last(SITE)
