"""What is counted is exact; what is measured leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal import InputError
from refusal.activations.collect import collect
from refusal.activations.estimate import MOST_BATCHES, _fitted, _spread, _waiting, activation_bytes, measure
from refusal.activations.plan import CALIBRATION
from refusal.activations.recipe import Recipe
from refusal.activations.shard import dataset, open_shard
from refusal.activations.store import ActivationStore
from refusal.activations.study import Study, make_study
from refusal.models.chat import ChatModel
from refusal.models.sites import parse_site
from refusal.models.weightless import has_weights, load_weightless
from refusal.prompts.prompt import Prompt

Planted = tuple[ChatModel, list[Prompt]]
SITES = tuple(parse_site(name) for name in ("attention_0", "mlp_2", "residuals_2"))
RECIPE = Recipe(SITES, response_tokens=4)


def stored_bytes(folder: Path) -> int:
    """The bytes of all activations and writes of a store."""
    total = 0
    for path in folder.glob("shard-*.h5"):
        with open_shard(path) as file:
            names = [*(f"activations/{site}" for site in SITES), *(["writes"] if "writes" in file else [])]
            total += sum(dataset(file, name).nbytes for name in names)
    return total


@pytest.mark.parametrize("changes", [{}, {"dtype": "bfloat16", "positions": ("last",)}, {"writes": False}])
def test_rows_and_bytes_are_those_of_the_store(planted: Planted, tmp_path: Path, changes: dict[str, object]) -> None:
    chat, prompts = planted
    recipe = replace(RECIPE, **changes)  # pyright: ignore[reportArgumentType]
    study = make_study(chat, prompts, recipe)
    assert collect(chat, prompts, recipe, tmp_path, card={})
    store = ActivationStore(tmp_path)
    assert sum(shard.n_rows for shard in store.shards) == study.n_rows == study.most_rows
    assert len(store.shards) == len(study.shards)
    assert stored_bytes(tmp_path) == activation_bytes(study, chat)


def test_rows_of_responses_are_at_most_what_is_said(planted: Planted, tmp_path: Path) -> None:
    chat, prompts = planted
    recipe = replace(RECIPE, response_positions=4)
    study = make_study(chat, prompts, recipe)
    assert collect(chat, prompts, recipe, tmp_path, card={})
    store = ActivationStore(tmp_path)
    assert study.n_rows < sum(shard.n_rows for shard in store.shards) <= study.most_rows
    assert stored_bytes(tmp_path) <= activation_bytes(study, chat)


def test_measuring_leaves_nothing_behind(planted: Planted, tmp_path: Path) -> None:
    chat, prompts = planted
    cost = measure(chat, make_study(chat, prompts, RECIPE), tmp_path, token_budget=256, compression=None)
    assert list(tmp_path.iterdir()) == []
    assert cost.seconds > 0
    assert 2 <= cost.n_measured <= cost.n_batches
    assert cost.device_bytes is None or chat.device.type == "cuda"


def test_a_small_study_waits_in_memory_whole_but_for_the_calibration_fold(planted: Planted) -> None:
    chat, prompts = planted
    recipe = replace(RECIPE, writes=False, refusal_tokens=(1,))  # no logits have to wait
    study = make_study(chat, prompts, recipe)
    n_rows = {shard: sum(len(study.positions[i]) for i in shard.prompts) for shard in study.shards}
    later = [n for shard, n in n_rows.items() if shard.fold != CALIBRATION]
    row = chat.d_model * 4
    assert _waiting(chat, study, 4096) == sum(later) * len(SITES) * row + max(later) * row


def test_batches_of_the_most_tokens_and_of_the_most_prompts_are_measured_first(planted: Planted) -> None:
    chat, prompts = planted
    study = make_study(chat, prompts, RECIPE)
    by_length = sorted(range(len(prompts)), key=lambda i: len(study.encoded[i].ids))
    most_tokens, most_prompts, others = by_length[-5:], by_length[:6], [[i] for i in by_length[6:-5]]
    chosen = _spread(study, [*others, most_prompts, most_tokens])
    assert chosen[:2] == [most_tokens, most_prompts]
    assert len(chosen) == MOST_BATCHES
    assert len(_spread(study, [*others[:3], most_prompts])) == 2


positive = st.floats(0.0, 10.0)


@given(
    st.lists(st.tuples(st.integers(1, 99), st.integers(1, 500)), min_size=4, max_size=8, unique=True),
    st.tuples(positive, positive),
)
def test_a_time_that_grows_with_batches_and_tokens_is_found_again(
    sizes: list[tuple[int, int]], weights: tuple[float, float]
) -> None:
    features = np.array([[1, n * width, n * width**2, n] for n, width in sizes], dtype=float)
    seconds = features[:, 0] * weights[0] + features[:, 1] / features[:, 1].max() * weights[1]
    found = _fitted(features, seconds, features)
    assert found.sum() == pytest.approx(seconds.sum(), rel=1e-3, abs=1e-6)


def test_nothing_that_can_be_run_is_one_line(planted: Planted, tmp_path: Path) -> None:
    chat, prompts = planted
    study = make_study(chat, prompts, RECIPE)
    none: Study = replace(study, failed=dict.fromkeys(range(len(prompts)), "too long"))
    with pytest.raises(InputError, match="none of the prompts can be run"):
        measure(chat, none, tmp_path, token_budget=256, compression=None)


# --- without weights ----------------------------------------------------------------------------------------


@pytest.fixture
def bare(planted: Planted, tmp_path: Path) -> Path:
    """The planted model's folder without its weights."""
    folder = tmp_path / "bare"
    shutil.copytree(planted[0].model.config._name_or_path, folder)
    (folder / "model.safetensors").unlink()
    return folder


def test_without_weights_the_plan_is_the_same(planted: Planted, bare: Path) -> None:
    chat, prompts = planted
    weightless = load_weightless(bare, name="bare")
    expected, found = make_study(chat, prompts, RECIPE), make_study(weightless, prompts, RECIPE)
    assert found.shards == expected.shards
    assert [at.tolist() for at in found.positions] == [at.tolist() for at in expected.positions]
    assert activation_bytes(found, weightless) == activation_bytes(expected, chat)
    assert found.bytes_needed(weightless) == expected.bytes_needed(chat)


def test_weights_are_there_only_if_every_file_is(bare: Path) -> None:
    assert not has_weights(bare)
    (bare / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "1.st", "b": "2.st"}}))
    (bare / "1.st").touch()
    assert not has_weights(bare)
    (bare / "2.st").touch()
    assert has_weights(bare)


def test_a_model_of_the_hub_that_is_not_in_the_cache_has_no_weights_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert not has_weights("some/model", "main")
