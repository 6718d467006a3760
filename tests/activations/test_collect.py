from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from refusal import InputError
from refusal.activations import plan, study
from refusal.activations.collect import collect
from refusal.activations.recipe import Recipe
from refusal.activations.shard import SECTIONS, Shard, column, dataset, open_shard
from refusal.activations.store import ActivationStore
from refusal.models.chat import ChatModel
from refusal.models.hooks import reading
from refusal.models.refusal_score import refusal_score
from refusal.models.sites import Site
from refusal.models.tokens import INSTRUCTION, TEMPLATE, TOKEN_KINDS
from refusal.prompts.prompt import Prompt
from tests.activations.conftest import tiny_chat

Planted = tuple[ChatModel, list[Prompt]]
SITES = [Site("mlp", 2), Site("residuals", 3)]
CARD = {"fingerprint": "abc", "model": "planted"}


@pytest.fixture(autouse=True)
def _small_waves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "WAVE_PROMPTS", 20)


@pytest.fixture(scope="module")
def store(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    return run(planted, tmp_path_factory.mktemp("outputs") / "store")


def run(planted: Planted, folder: Path, **changes: Any) -> ActivationStore:
    prompts, budget = changes.pop("prompts", planted[1]), changes.pop("token_budget", 4096)
    recipe = Recipe(**({"sites": tuple(SITES), "response_tokens": 4} | changes))
    assert collect(planted[0], prompts, recipe, folder, token_budget=budget, card=CARD)
    return ActivationStore(folder)


def test_labels_belong_to_their_prompts(planted: Planted, store: ActivationStore) -> None:
    chat, prompts = planted
    table = store.prompts()
    assert table["id"].tolist() == [prompt.id for prompt in prompts]
    assert table["fold"].tolist() == [prompt.fold for prompt in prompts]
    assert (table["refused"] == (table["split"] == "toxic")).all()  # as it was planted
    tokens = store.refusal_tokens
    assert [chat.tokenizer.decode(token) for token in tokens] == ["I"]  # "I cannot help with that ."
    for i in range(0, len(prompts), 7):
        ids = chat.encode(prompts[i].text).ids
        with torch.no_grad(), reading(chat.model, [*SITES, Site("attention", 1)]) as read:
            logits = chat.model(torch.tensor([ids])).logits[0, -1]
        assert table["refusal_score"][i] == pytest.approx(float(refusal_score(logits, tokens)), rel=1e-4)
        assert table["n_tokens"][i] == len(ids)
        np.testing.assert_allclose(store.last("mlp_2")[i], read[SITES[0]][0, -1], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(store.writes()[i, 1, 0], read[Site("attention", 1)][0, -1], rtol=1e-4, atol=1e-4)


def test_every_row_is_the_token_that_it_says(planted: Planted, store: ActivationStore) -> None:
    chat, prompts = planted
    by_id = {prompt.id: prompt for prompt in prompts}
    table = store.prompts()
    n_rows = 0
    for shard in store.shards[::5]:
        rows = store.row_table(shard)
        values = store.read_rows(shard, "residuals_3", 0, shard.n_rows)
        members = table[(table["fold"] == shard.fold) & (table["split"] == shard.split)]
        members = set(members[members["category"] == shard.category]["id"])
        with torch.no_grad():
            for number, prompt_id in enumerate(shard_ids(store, shard.path)):
                assert prompt_id in members
                encoded = chat.encode(by_id[prompt_id].text)
                with reading(chat.model, SITES[1:]) as read:
                    chat.model(torch.tensor([encoded.ids]))
                here = np.flatnonzero(rows["prompt"] == number)
                positions = rows["position"][here]
                assert rows["token_id"][here].tolist() == [encoded.ids[p] for p in positions]
                assert rows["kind"][here].tolist() == encoded.kinds[positions].tolist()
                np.testing.assert_allclose(values[here], read[SITES[1]][0].numpy()[positions], rtol=1e-4, atol=1e-4)
                wanted = np.flatnonzero(np.isin(encoded.kinds, (INSTRUCTION, TEMPLATE)))
                assert sorted(positions.tolist()) == wanted.tolist()
                assert positions[here == number].tolist() == [len(encoded.ids) - 1]  # last positions come first
                n_rows += len(here)
        rest = rows["prompt"][shard.n_prompts :]
        assert (np.diff(rest) != 0).mean() > 0.4  # permuted: neighbours seldom belong to one prompt
    assert n_rows == sum(shard.n_rows for shard in store.shards[::5])


def shard_ids(store: ActivationStore, path: Path) -> list[str]:
    return json.loads((store.folder / "plan.json").read_text())["shards"][path.name]


def test_the_manifest_is_the_card(store: ActivationStore) -> None:
    manifest = store.manifest
    assert manifest["fingerprint"] == "abc"
    assert manifest["refusal_rate"] == {"hard": 0.0, "safe": 0.0, "toxic": 1.0}
    assert manifest["score_auc"] == 1.0
    assert manifest["failed"] == []
    assert manifest["n_rows"] == sum(shard.n_rows for shard in store.shards)
    assert [shard["bytes"] for shard in manifest["shards"]] == [shard.path.stat().st_size for shard in store.shards]


def test_a_finished_store_is_found(
    planted: Planted, store: ActivationStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "run_batch", None)
    assert run(planted, store.folder).manifest == store.manifest
    assert capsys.readouterr().out.split()[:2] == ["activations", "found"]


def test_a_shard_that_is_damaged_or_gone_is_collected_again(
    planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(planted, tmp_path / "store")
    last = first.last("mlp_2")
    first.shards[3].path.unlink()
    first.shards[9].path.write_bytes(first.shards[9].path.read_bytes()[:5000])
    again = run(planted, tmp_path / "store")
    output = capsys.readouterr()
    assert "resumed" in output.out
    assert "shard-0009" in output.err
    np.testing.assert_array_equal(again.last("mlp_2"), last)


def test_another_plan_for_the_folder_starts_anew(planted: Planted, tmp_path: Path) -> None:
    run(planted, tmp_path / "store")
    (tmp_path / "store" / "manifest.json").unlink()
    store = run(planted, tmp_path / "store", dtype="bfloat16")
    assert store.manifest["dtype"] == "bfloat16"
    assert np.isfinite(store.last("mlp_2")).all()


def test_given_refusal_tokens_are_used(planted: Planted, tmp_path: Path) -> None:
    prompts = [replace(prompt, fold="train") for prompt in planted[1]]
    store = run(planted, tmp_path / "store", refusal_tokens=[6, 7], prompts=prompts)
    assert store.refusal_tokens == [6, 7]
    assert np.isfinite(store.prompts()["refusal_score"]).all()
    with pytest.raises(InputError, match=r"no prompt is in the calibration fold.*model\.refusal_tokens"):
        run(planted, tmp_path / "other", prompts=prompts)
    with pytest.raises(InputError, match=r"model\.refusal_tokens: 100000 is not a token"):
        run(planted, tmp_path / "other", refusal_tokens=[100_000])


def test_a_prompt_that_fails_is_recorded_and_shifts_nothing(
    planted: Planted, store: ActivationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    prompts = planted[1]
    bad = {prompts[10].id, prompts[31].id}
    honest = study.run_batch

    def sometimes(chat: ChatModel, *args: Any, **options: Any) -> Any:
        if bad & set(options["ids"]):
            raise RuntimeError("a bad prompt\nwith a long story")
        return honest(chat, *args, **options)

    monkeypatch.setattr(study, "run_batch", sometimes)
    broken = run(planted, tmp_path / "store")
    assert {failure["id"] for failure in broken.manifest["failed"]} == bad
    assert {failure["why"] for failure in broken.manifest["failed"]} == {"RuntimeError: a bad prompt"}
    assert "2 of 72 prompts could not be run" in capsys.readouterr().err
    keep = ~store.prompts()["id"].isin(list(bad)).to_numpy()
    expected = store.prompts()[keep].reset_index(drop=True)
    found = broken.prompts()
    for name in set(expected.columns) - {"refusal_score"}:
        assert expected[name].tolist() == found[name].tolist()
    np.testing.assert_allclose(found["refusal_score"], expected["refusal_score"], rtol=1e-4)
    np.testing.assert_allclose(broken.last("mlp_2"), store.last("mlp_2")[keep], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(broken.writes(), store.writes()[keep], rtol=1e-4, atol=1e-4)


def test_out_of_memory_halves_the_batch_and_goes_on(
    planted: Planted, store: ActivationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, sizes, failures = study.run_batch, [], []

    def small(chat: ChatModel, prompts: Any, *args: Any, **options: Any) -> Any:
        if len(prompts) > 8:
            failures.append(len(prompts))
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(prompts))
        return honest(chat, prompts, *args, **options)

    monkeypatch.setattr(study, "run_batch", small)
    halved = run(planted, tmp_path / "store")
    assert len(failures) <= 4  # once it has failed, later batches are smaller from the start
    assert max(sizes) > 4
    assert halved.manifest["failed"] == []
    np.testing.assert_allclose(halved.last("mlp_2"), store.last("mlp_2"), rtol=1e-4, atol=1e-4)


def with_a_long_one(planted: Planted) -> tuple[list[Prompt], int]:
    limit = planted[0].model.config.max_position_embeddings
    return [replace(planted[1][0], text="ba " * (limit + 5)), *planted[1][1:]], limit


def test_a_prompt_longer_than_the_context_loses_the_end_of_its_instruction(
    planted: Planted, tmp_path: Path, capsys: Any
) -> None:
    prompts, limit = with_a_long_one(planted)
    store = run(planted, tmp_path / "store", prompts=prompts)
    table = store.prompts()
    assert table["n_tokens"][0] == limit - 4  # room for the response
    assert table["truncated"].tolist() == [len(planted[0].encode(prompts[0].text).ids) - limit + 4, *[0] * 71]
    assert f"1 of 72 prompts exceed the model's context of {limit}" in capsys.readouterr().err
    assert store.max_prompt_tokens == limit - 4


def test_a_prompt_longer_than_the_context_is_refused_if_so_asked(planted: Planted, tmp_path: Path) -> None:
    prompts, limit = with_a_long_one(planted)
    (failure,) = run(planted, tmp_path / "store", prompts=prompts, too_long="refuse").manifest["failed"]
    assert failure["id"] == prompts[0].id
    assert f"exceed the model's context of {limit}" in failure["why"]


def test_rows_stand_in_the_sections_of_their_kinds(planted: Planted, tmp_path: Path) -> None:
    chat, prompts = planted
    store = run(planted, tmp_path / "store", positions=("prompt", "last_instruction"), response_positions=2)
    order = [SECTIONS.index(name) for name, _ in store.shards[0].sections]
    assert order == sorted(order)
    for shard in store.shards[::4]:
        rows = store.row_table(shard)
        n_tokens = dict(enumerate(shard_lengths(store, shard)))
        for name, size in shard.sections:
            ((start, stop),) = shard.runs([name])
            assert stop - start == size
            here = {column: values[start:stop] for column, values in rows.items()}
            if name.startswith("last"):
                assert here["prompt"].tolist() == list(range(shard.n_prompts))
            else:
                assert {TOKEN_KINDS[kind] for kind in here["kind"]} == {name}
            lengths = np.array([n_tokens[i] for i in here["prompt"].tolist()])
            assert ((here["position"] >= lengths) == (name == "response")).all()
    assert dict(store.shards[0].sections)["response"] == 2 * store.shards[0].n_prompts
    by_place = store.last_instruction("residuals_3")
    for i in (0, 20, 71):
        encoded = chat.encode(prompts[i].text)
        with torch.no_grad(), reading(chat.model, SITES) as read:
            chat.model(torch.tensor([encoded.ids]))
        at = np.flatnonzero(encoded.kinds == INSTRUCTION)[-1]
        np.testing.assert_allclose(by_place[i], read[SITES[1]][0, at], rtol=1e-4, atol=1e-4)


def shard_lengths(store: ActivationStore, shard: Shard) -> list[int]:
    with open_shard(shard.path) as file:
        return column(file, "prompts/n_tokens").tolist()


def test_without_responses_and_scores_the_later_layers_are_not_run(planted: Planted, tmp_path: Path) -> None:
    chat, ran = planted[0], []
    handles = [
        layer.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, layer in enumerate(chat.model.model.layers)
    ]
    try:
        store = run(planted, tmp_path / "store", response_tokens=0, writes=False, sites=(Site("mlp", 1),))
    finally:
        for handle in handles:
            handle.remove()
    assert set(ran) == {0}  # block 1 is left after its MLP, before its output hook
    assert store.manifest["labels"] == "none"
    assert store.manifest["refusal_tokens"] is None
    full = run(planted, tmp_path / "full", sites=(Site("mlp", 1),))
    np.testing.assert_allclose(store.last("mlp_1"), full.last("mlp_1"), rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match=r"no labels, as model\.response_tokens=0"):
        store.evidence()


def test_no_prompt_goes_through_the_model_twice(planted: Planted, tmp_path: Path) -> None:
    chat, seen = planted[0], 0

    def count(_module: Any, _args: Any, kwargs: Any) -> None:
        nonlocal seen
        mask = kwargs["attention_mask"]
        if kwargs["input_ids"].shape == mask.shape:  # a prefill; a step of the response has one column
            seen += len(mask)

    handle = chat.model.register_forward_pre_hook(count, with_kwargs=True)
    run(planted, tmp_path / "store")
    handle.remove()
    assert seen == len(planted[1])


def test_the_score_alone_needs_no_response(planted: Planted, tmp_path: Path, store: ActivationStore) -> None:
    tokens = tuple(store.refusal_tokens)
    scored = run(planted, tmp_path / "store", response_tokens=0, refused_by="score", refusal_tokens=tokens)
    table, expected = scored.prompts(), store.prompts()
    np.testing.assert_allclose(table["refusal_score"], expected["refusal_score"], rtol=1e-3)
    assert table["refused"].tolist() == (expected["refusal_score"] > 0).tolist()
    assert set(table["response"]) == {""}
    with pytest.raises(InputError, match=r"model\.refused_by=phrases needs responses"):
        run(planted, tmp_path / "other", response_tokens=0, refusal_tokens=tokens)


def test_reworded_prompts_teach_no_tokens_and_count_in_no_rate(planted: Planted, tmp_path: Path) -> None:
    # every harmful prompt comes again in words that the model complies with, marked as made from it
    harmless = {prompt.fold: prompt.text for prompt in planted[1] if prompt.split == "safe"}
    reworded = [
        replace(prompt, id=f"{prompt.id}-r", text=harmless[prompt.fold], source=prompt.id, variant="paraphrase")
        for prompt in planted[1]
        if prompt.split == "toxic"
    ]
    store = run(planted, tmp_path / "store", prompts=[*planted[1], *reworded])
    assert store.manifest["refusal_rate"] == {"hard": 0.0, "safe": 0.0, "toxic": 1.0}
    table = store.prompts()
    assert store.evidence().tolist() == (table["variant"] == "").tolist()
    assert table["source"].tolist()[-len(reworded) :] == [prompt.source for prompt in reworded]


def test_where_both_rules_are_asked_prompts_on_which_they_disagree_are_no_evidence(
    planted: Planted, tmp_path: Path, store: ActivationStore
) -> None:
    assert store.evidence().all()
    assert store.manifest["agreement"] == 1.0
    both = run(planted, tmp_path / "store", refused_by="both", phrases=("I cannot", "Sure"), refusal_tokens=(6, 7))
    table = both.prompts()
    assert table["by_phrases"].all()  # as the opening of compliance is listed, too
    assert 0 < both.evidence().sum() < len(table)
    assert both.evidence().tolist() == (table["by_phrases"] == table["by_score"]).tolist()
    assert (table["refused"] == (table["by_phrases"] & table["by_score"])).all()


def test_a_compressed_store_holds_the_same(planted: Planted, tmp_path: Path, store: ActivationStore) -> None:
    recipe = Recipe(tuple(SITES), response_tokens=4)
    collect(*planted, recipe, tmp_path / "store", compression="gzip", card=CARD)
    small = ActivationStore(tmp_path / "store")
    for site in SITES:
        np.testing.assert_allclose(small.last(site), store.last(site), rtol=1e-4, atol=1e-4)
    with open_shard(small.shards[0].path) as file:
        assert dataset(file, "activations/mlp_2").compression == "gzip"
    total = [sum(shard["bytes"] for shard in each.manifest["shards"]) for each in (small, store)]
    assert total[0] < total[1]


def test_too_many_rows_are_sampled_for_every_prompt(planted: Planted, tmp_path: Path, capsys: Any) -> None:
    full = run(planted, tmp_path / "full")
    n_prompts, n_rows = len(planted[1]), full.manifest["n_rows"]
    store = run(planted, tmp_path / "store", max_rows=300)
    assert n_rows > 300 >= store.manifest["n_rows"] > 300 - n_prompts
    assert len(store.prompts()) == n_prompts
    np.testing.assert_allclose(store.last("mlp_2"), full.last("mlp_2"), rtol=1e-4, atol=1e-4)
    assert f"of {n_rows:,} rows" in capsys.readouterr().err


def test_a_disk_that_is_too_small_stops_it_at_once(
    planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    monkeypatch.setattr(study, "run_batch", None)
    with pytest.raises(InputError, match="MB free"):
        run(planted, tmp_path / "store")


@pytest.mark.parametrize(("split", "word"), [("toxic", "always"), ("safe", "never")])
def test_a_model_that_always_or_never_refuses(planted: Planted, tmp_path: Path, split: str, word: str) -> None:
    prompts = [prompt for prompt in planted[1] if prompt.split == split]
    with pytest.raises(InputError, match=f"the model {word} refuses: .* of 8 prompts.*responses begin '") as caught:
        run(planted, tmp_path / "store", prompts=prompts)
    assert "\n" not in str(caught.value)


def test_no_prompts_or_none_that_runs(planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **options: Any) -> Any:
        raise RuntimeError("always broken")

    monkeypatch.setattr(study, "run_batch", never)
    with pytest.raises(InputError, match="no prompts"):
        run(planted, tmp_path / "store", prompts=[])
    with pytest.raises(InputError, match=r"none of the prompts could be run.*always broken"):
        run(planted, tmp_path / "store")


def test_an_activation_that_is_not_finite_stops_it(planted: Planted, tmp_path: Path) -> None:
    chat = tiny_chat()
    chat.model.model.embed_tokens.weight[:] = float("nan")
    with pytest.raises(InputError, match=r"mlp_1 are not finite for prompt [0-9a-f]{16}"):
        collect(chat, planted[1], Recipe((Site("mlp", 1),)), tmp_path / "store", card={})


def test_an_unwritable_place_is_one_line(planted: Planted, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        run(planted, tmp_path / "file" / "store")
