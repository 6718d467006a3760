"""Attribution in bfloat16, as large models are run, against float32 on a planted model.

bfloat16 keeps 8 bits, so that x has errors of 0.4 % wherever it is rounded. Circuits are chosen by means over prompts:
those agree within 6 % of a site's strongest feature (4.6 % at the residual stream, where it was measured, under 3 % at
writes), sites' sums within 4 % (2.6 %), and the nodes are the same but for some at the threshold.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from refusal.circuits.attribution import atp
from refusal.circuits.experiment import Experiment
from refusal.circuits.importances import mean_by_site
from refusal.circuits.select import choose_nodes, scaled
from refusal.models.chat import load_chat_model
from refusal.models.planted import write_planted
from refusal.models.planted_plan import Plan
from refusal.models.sites import Site, parse_site
from refusal.prompts.planted import make_vocabulary, planted_prompts
from tests.circuits.linear import HandSae

SITES = [parse_site(name) for name in ("attention_0", "mlp_1", "mlp_2", "residuals_3")]
TOLERANCE = 0.06
"""Greatest difference of mean importances, as a share of the site's strongest feature."""


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[Site, np.ndarray]]]:
    """Mean importances [d_sae + 1] by site, by category, by type of the weights."""
    torch.set_num_threads(1)
    folder: Path = tmp_path_factory.mktemp("planted")
    categories = ["hate", "privacy"]
    vocabulary = make_vocabulary(0, categories)
    write_planted(folder, vocabulary, Plan(modularity=0.5))
    prompts = planted_prompts(vocabulary, n_safe=12, n_hard=12, n_toxic=12, seed=0)
    found = {}
    for dtype in ("float32", "bfloat16"):
        chat = load_chat_model(folder, name="planted", dtype=dtype, device="cpu")
        axes = np.linalg.qr(np.random.default_rng(0).normal(size=(chat.d_model, chat.d_model)))[0]
        axes = np.concatenate([axes, -axes])
        experiment = Experiment(
            chat,
            [chat.encode(prompt.text) for prompt in prompts],
            [prompt.category for prompt in prompts],
            np.array([prompt.split == "toxic" for prompt in prompts]),
            dict.fromkeys(SITES, HandSae(axes.T, axes)),
            chat.tokenizer.convert_tokens_to_ids(["I"]),
        )
        assert experiment.chat.model.dtype == getattr(torch, dtype)
        importances = atp.attribute(experiment)
        found[dtype] = {name: mean_by_site(importances, experiment.rows(name, refused=True)) for name in categories}
    return found


@pytest.mark.parametrize("category", ["hate", "privacy"])
def test_mean_importances_agree_with_those_of_float32(means: dict, category: str) -> None:
    exact, rounded = (means[dtype][category] for dtype in ("float32", "bfloat16"))
    for site in SITES:
        strongest = np.abs(exact[site][:-1]).max()
        assert strongest > 0.1, site
        assert np.abs(rounded[site] - exact[site]).max() <= TOLERANCE * strongest, site
        assert rounded[site].sum() == pytest.approx(exact[site].sum(), rel=0.04), site


@pytest.mark.parametrize("category", ["hate", "privacy"])
def test_nodes_are_those_of_float32_but_for_some_at_the_threshold(means: dict, category: str) -> None:
    exact, rounded = (means[dtype][category] for dtype in ("float32", "bfloat16"))
    nodes = [{node.id for node in choose_nodes(of_type, threshold=0.1)} for of_type in (exact, rounded)]
    relative = scaled(exact)
    for name in nodes[0] ^ nodes[1]:
        site, _, feature = name.partition("/")
        assert abs(relative[parse_site(site)][int(feature)]) == pytest.approx(0.1, abs=TOLERANCE)
    assert len(nodes[0] & nodes[1]) > 20
