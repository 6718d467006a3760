"""The planted model refuses exactly where a topic meets a harm word, and its truth is in closed form."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from refusal import InputError
from refusal.artifacts import read_json
from refusal.comparison.crossfit import halves
from refusal.comparison.directions import unit
from refusal.comparison.knockout import WRITES
from refusal.comparison.transfer import measure_drops
from refusal.models.chat import ChatModel, load_chat_model
from refusal.models.planted import spread_out, write_planted
from refusal.models.planted_plan import Plan, truth
from refusal.models.refusal_score import refused
from refusal.prompts.planted import make_vocabulary, planted_prompts
from refusal.prompts.prompt import CATEGORIES, Prompt
from tests.comparison.planted_study import plant

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
        Plan(modularity=0.5, spread=0.5, superposition=0.3),
        Plan(modularity=0.5, n_layers=8, decision_layer=3, writers=3, chatter=1.0),
        Plan(modularity=0.5, joint=True, decoy=1.0, d_model=160),
        Plan(modularity=0.5, joint=True, writers=2, superposition=0.25, chatter=3.0, d_model=192),
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
        (Plan(modularity=0.25, superposition=0.3, writers=2, joint=True, decoy=1.0, chatter=2.0), 0.75),
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


OTHERWISE = [
    {"modularity": 0.5, "spread": 0.4},
    {"modularity": 0.5, "superposition": 0.3, "decoy": 1.0},
    {"modularity": 0.5, "n_layers": 8, "decision_layer": 3, "writers": 2},
    {"modularity": 0.5, "joint": True, "decoy": 1.0, "groups": (CATEGORIES[:2], CATEGORIES[2:5])},
    {"modularity": 0.25, "chatter": 0.2, "spread": 0.2},
]


@pytest.mark.parametrize("options", OTHERWISE, ids=str)
def test_knocking_out_the_written_directions_transfers_as_the_truth_says(options: dict[str, Any]):
    plan, categories = Plan(**options), CATEGORIES[:5]
    study = plant(plan, categories=categories, n=6)
    start, n_parts = plan.decision_layer, study.knock_outs.fit.n_parts
    written = np.zeros((n_parts, len(categories), plan.n_layers, len(WRITES), plan.d_model), dtype=np.float32)
    for layer in plan.deciding:
        columns = study.chat.model.model.layers[layer].mlp.down_proj.weight[:, : len(categories)]
        written[:, :, layer, WRITES.index("mlp")] = columns.detach().numpy().T
    drops = measure_drops(study.knock_outs, unit(written), start, plan.deciding.stop).matrix()
    np.testing.assert_allclose(drops / np.diag(drops), truth(plan, categories)["transfer"], atol=0.05)


def test_chatter_makes_directions_from_few_prompts_inexact_and_changes_no_label():
    quiet, loud = (plant(Plan(chatter=chatter), categories=CATEGORIES[:5], n=10) for chatter in (0.0, 3.0))
    np.testing.assert_array_equal(loud.contrast.refused, quiet.contrast.refused)
    across = []  # cosine of both halves' directions, by category
    for study in (quiet, loud):
        directions = unit(halves(study.contrast).difference(study.contrast.writes))[:, :, 2, 1]
        across.append(directions.prod(0).sum(-1))
    assert across[0].min() > 0.95
    assert 0.2 < across[1].mean() < 0.7


@given(n=st.integers(2, 12), kept=st.floats(0.6, 1), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_spread_out_vectors_overlap_little(n: int, kept: float, seed: int):
    n_dims = max(1, round(n * kept))
    rows = spread_out(torch.randn(n, n_dims, generator=torch.Generator().manual_seed(seed)))
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(n))
    bound = (max(0, n - n_dims) / max(1, n_dims * (n - 1))) ** 0.5
    assert float((rows @ rows.T - torch.eye(n)).abs().max()) <= 1.6 * bound + 0.01


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
        ({"modularity": 0.2, "spread": 0.3}, r"model\.spread=0\.3 takes model\.modularity=0\.2 out of the range"),
        ({"superposition": 0.8}, "is not between 0 and 0.5"),
        ({"writers": 0}, "must be 1 or more"),
        ({"decision_layer": 4, "writers": 3}, r"must be from 2 to model\.n_layers - model\.writers = 3"),
    ],
)
def test_impossible_plans_are_one_line(options: dict, message: str, tmp_path: Path):
    with pytest.raises(InputError, match=message):
        write_planted(tmp_path, make_vocabulary(), Plan(**options))


def test_evidence_that_overlaps_too_much_is_one_line(tmp_path: Path):
    with pytest.raises(InputError, match="puts 4 categories into 2 dimensions"):
        write_planted(tmp_path, make_vocabulary(0, CATEGORIES[:4]), Plan(superposition=0.5))
