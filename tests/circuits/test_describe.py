"""What ``features.json`` says of a feature is what the model and its autoencoder do, prompt by prompt."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from refusal.activations.collect import collect
from refusal.activations.recipe import Recipe
from refusal.activations.store import ActivationStore
from refusal.circuits import features as limits
from refusal.circuits.circuit import ERROR, Circuit, Node, save_circuit
from refusal.circuits.describe import write_features
from refusal.models.chat import ChatModel, load_chat_model
from refusal.models.hooks import reading
from refusal.models.planted import write_planted
from refusal.models.planted_plan import Plan
from refusal.models.sites import Site
from refusal.prompts.planted import make_vocabulary, planted_prompts
from refusal.prompts.prompt import FOLDS
from tests.circuits.linear import HandSae

SITE = Site("mlp", 2)
LONG = limits.HEAD + limits.TAIL + 7


class Study:
    """A planted model of two categories, its activations, a dictionary of all coordinates' signs, one circuit each."""

    def __init__(self, folder: Path) -> None:
        vocabulary = make_vocabulary(categories=("hate", "privacy"))
        write_planted(folder / "model", vocabulary, Plan(n_layers=4))
        self.chat: ChatModel = load_chat_model(folder / "model", name="planted")
        prompts = planted_prompts(vocabulary, n_safe=6, n_hard=6, n_toxic=6)
        prompts = [replace(prompt, fold=FOLDS[i % 3]) for i, prompt in enumerate(prompts)]
        toxic = next(i for i, prompt in enumerate(prompts) if prompt.split == "toxic")
        words = prompts[toxic].text.split()
        prompts[toxic] = replace(prompts[toxic], text=" ".join((words * LONG)[:LONG]))
        collect(self.chat, prompts, Recipe((SITE,)), folder / "store", card={"fingerprint": "abc", "model": "planted"})
        self.store = ActivationStore(folder / "store")
        both = np.concatenate([np.eye(self.chat.d_model), -np.eye(self.chat.d_model)])
        self.sae = HandSae(both.T, both)
        f = self.sae.encode(torch.from_numpy(self.store.last(SITE))).numpy()
        self.chosen = np.argsort(-f.max(0))[:3].tolist()
        nodes = tuple(Node(str(SITE), feature, 1.0, 1.0) for feature in (*self.chosen, ERROR))
        for category in ("hate", "privacy"):
            save_circuit(folder, Circuit("planted", category, "all", "atp", 6, True, 1.0, "abc", {}, nodes))
        save_circuit(
            folder, Circuit("planted", "hate", "safe", "atp", 6, True, 1.0, "abc", {}, (Node("mlp_0", 1, 1, 1),))
        )
        self.found = write_features(folder, self.chat, self.store, {SITE: self.sae})
        self.folder = folder

    def codes(self, text: str) -> np.ndarray:
        """f at every token of one prompt, run alone, [n_tokens, n_features]."""
        ids = torch.tensor([self.chat.encode(text).ids])
        with torch.no_grad(), reading(self.chat.model, [SITE]) as read:
            self.chat.model(ids)
        return self.sae.encode(read[SITE][0]).numpy()

    def features(self) -> list[tuple[int, dict[str, Any]]]:
        return [(feature["feature"], feature) for feature in self.found["features"]]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(tmp_path_factory.mktemp("study"))


def test_the_features_of_the_circuits_are_described_and_the_file_says_the_same(study: Study) -> None:
    assert [number for number, _ in study.features()] == sorted(study.chosen)  # neither the error nor another side
    written = json.loads((study.folder / limits.FEATURES).read_text())
    assert written == json.loads(json.dumps(study.found))
    assert written["categories"] == ["hate", "privacy"]


def test_activations_on_the_top_prompts_are_those_of_the_prompt_run_alone(study: Study) -> None:
    texts = study.store.prompts().set_index("id")["text"]
    checked = 0
    for number, feature in study.features():
        for top in feature["top"]:
            prompt = study.found["prompts"][top["prompt"]]
            codes = study.codes(texts[prompt["id"]])[-len(prompt["tokens"]) :, number]
            if not prompt["left_out"]:
                expected = {i: value for i, value in enumerate(codes.tolist()) if value > 0}
                assert dict(top["activations"]) == pytest.approx(expected, rel=1e-2, abs=1e-3)
                checked += 1
    assert checked


def test_top_prompts_are_the_strongest_of_different_categories(study: Study) -> None:
    table = study.store.prompts()
    last = study.sae.encode(torch.from_numpy(study.store.last(SITE))).numpy()
    for number, feature in study.features():
        shown = [study.found["prompts"][top["prompt"]] for top in feature["top"]]
        strongest = {
            category: table["id"][int(np.argmax(np.where(table["category"] == category, last[:, number], -1)))]
            for category in ("hate", "privacy")
        }
        assert {prompt["category"]: prompt["id"] for prompt in shown}.items() <= strongest.items()
        assert feature["maximum"] == pytest.approx(last[:, number].max(), rel=1e-3)


def test_means_and_shares_are_over_refused_and_complied_prompts_of_a_category(study: Study) -> None:
    table = study.store.prompts()
    last = study.sae.encode(torch.from_numpy(study.store.last(SITE))).numpy()
    for number, feature in study.features():
        for did, refused in (("refused", True), ("complied", False)):
            rows = ((table["category"] == "privacy") & (table["refused"] == refused)).to_numpy()
            assert feature["mean"][did][1] == pytest.approx(last[rows, number].mean(), rel=1e-3)
            assert feature["share"][did][1] == pytest.approx((last[rows, number] > 0).mean(), rel=1e-3)
            assert study.found["n_prompts"][did][1] == rows.sum()


def test_tokens_are_the_text_from_the_instruction_on_and_long_ones_lose_their_middle(study: Study) -> None:
    texts = study.store.prompts().set_index("id")["text"]
    for prompt in study.found["prompts"]:
        text, words = "".join(prompt["tokens"]), texts[prompt["id"]].split()
        assert text.split()[0] == words[0]
        assert text.split()[-1] == "<assistant>"
        if not prompt["left_out"]:
            assert " ".join(words) in " ".join(text.split())
    long = [prompt for prompt in study.found["prompts"] if prompt["left_out"]]
    assert all(len(prompt["tokens"]) == limits.HEAD + limits.TAIL for prompt in long)


def test_neighbours_are_the_nearest_other_directions(study: Study) -> None:
    (_, feature) = study.features()[0]
    assert len(feature["neighbours"]) == limits.N_NEIGHBOURS
    assert feature["feature"] not in [number for number, _ in feature["neighbours"]]
    cosines = [cosine for _, cosine in feature["neighbours"]]
    assert cosines == sorted(cosines, reverse=True)
    assert max(cosines) <= 0.0  # coordinates are orthogonal, or opposite


def test_the_tokens_of_the_lens_come_strongest_first(study: Study) -> None:
    for _, feature in study.features():
        raised, lowered = ([value for _, value in feature[end]] for end in ("raises", "lowers"))
        assert len(raised) == len(lowered) == limits.N_TOKENS
        assert raised == sorted(raised, reverse=True)
        assert lowered == sorted(lowered)
