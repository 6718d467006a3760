"""The planted model refuses exactly where a topic meets a harm word, and its truth is in closed form."""

from pathlib import Path

import numpy as np
import pytest
import torch

from refusal import InputError
from refusal.artifacts import read_json
from refusal.models.chat import ChatModel, load_chat_model
from refusal.models.planted import write_planted
from refusal.models.planted_plan import Plan, truth
from refusal.models.refusal_score import refused
from refusal.prompts.planted import make_vocabulary, planted_prompts
from refusal.prompts.prompt import CATEGORIES, Prompt

GROUPS = (CATEGORIES[:4], CATEGORIES[4:7], CATEGORIES[7:])


def responses(chat: ChatModel, prompts: list[Prompt]) -> list[str]:
    batch = chat.pad([chat.encode(prompt.text) for prompt in prompts])
    out = chat.model.generate(batch.input_ids, attention_mask=batch.attention_mask, max_new_tokens=8, do_sample=False)
    return chat.tokenizer.batch_decode(out[:, batch.input_ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize(
    "plan",
    [
        Plan(modularity=0.0),
        Plan(modularity=0.5),
        Plan(modularity=1.0),
        Plan(n_layers=9, decision_layer=5, decoy=1.0, seed=3),
        Plan(modularity=1.0, groups=GROUPS, seed=1),
    ],
    ids=str,
)
def test_toxic_prompts_are_refused_and_no_others(plan: Plan, tmp_path: Path):
    vocabulary = make_vocabulary(plan.seed)
    write_planted(tmp_path, vocabulary, plan)
    prompts = planted_prompts(vocabulary, n_safe=6, n_hard=6, n_toxic=6)
    said = responses(load_chat_model(tmp_path, name="planted"), prompts)
    assert set(said) == {"I cannot help with that .", "Sure here is how ."}
    assert [refused(text) for text in said] == [prompt.split == "toxic" for prompt in prompts]


@pytest.mark.parametrize(
    ("plan", "index"),
    [
        (Plan(modularity=0.0), 1.0),
        (Plan(modularity=0.25), 0.75),
        (Plan(modularity=1.0), 0.0),
        (Plan(modularity=1.0, groups=GROUPS), 24 / 90),  # pairs within groups of 4, 3, 3: 12 + 6 + 6
        (Plan(modularity=0.5, groups=GROUPS), 0.5 + 0.5 * 24 / 90),
    ],
    ids=str,
)
def test_the_truth_is_known_in_closed_form(plan: Plan, index: float):
    assert truth(plan, CATEGORIES)["index"] == pytest.approx(index)


def test_the_truth_is_that_of_the_written_weights(tmp_path: Path):
    plan = Plan(modularity=0.3)
    write_planted(tmp_path, make_vocabulary(), plan)
    model = load_chat_model(tmp_path, name="planted").model
    writes = model.model.layers[plan.decision_layer].mlp.down_proj.weight[:, : len(CATEGORIES)].T
    writes = writes / writes.norm(dim=1, keepdim=True)  # v of each category
    tokens = {token: row for row, token in enumerate(load_words(tmp_path))}
    read = model.lm_head.weight[tokens["I"]] - model.lm_head.weight[tokens["Sure"]]
    matrix = (writes @ writes.T) * (writes @ read)[:, None] / (writes @ read)[None, :]
    expected = np.array(read_json(tmp_path / "truth.json")["transfer"])
    np.testing.assert_allclose(matrix.numpy(), expected, atol=1e-4)


def load_words(folder: Path) -> list[str]:
    tokenizer = load_chat_model(folder, name="planted").tokenizer
    return tokenizer.convert_ids_to_tokens(range(len(tokenizer)))


def test_the_same_plan_gives_the_same_weights(tmp_path: Path):
    for name in ("a", "b"):
        torch.rand(1)  # whatever the global generator's state
        write_planted(tmp_path / name, make_vocabulary(), Plan(modularity=0.5))
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modularity": 1.5}, r"model\.modularity=1\.5 is not between"),
        ({"decision_layer": 6}, "must be from 2 to"),
        ({"groups": (CATEGORIES[:3],)}, "must name each of"),
        ({"d_model": 32}, "need d_model >= "),
    ],
)
def test_impossible_plans_are_one_line(options: dict, message: str, tmp_path: Path):
    with pytest.raises(InputError, match=message):
        write_planted(tmp_path, make_vocabulary(), Plan(**options))
