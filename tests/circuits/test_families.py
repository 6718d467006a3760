"""The same laws on real, small, random models: tokens mix, norms curve, prompts are padded, blocks are parallel."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from refusal.circuits.attribution import atp, exact, ig
from refusal.circuits.behaviour import behaviour
from refusal.circuits.circuit import ERROR, Circuit, Edge, Node
from refusal.circuits.discover import circuit_means, circuits_of
from refusal.circuits.edges import with_edges
from refusal.circuits.evaluation import evaluate
from refusal.circuits.experiment import Experiment
from refusal.circuits.neurons import strongest
from refusal.models import gradients
from refusal.models.hooks import editing, has_neurons
from refusal.models.refusal_score import refusal_score
from refusal.models.sites import Site, parse_site
from tests.circuits.linear import HandSae, LinearChat, prompt
from tests.models.tiny import D_MODEL, tiny

D_SAE, N_TEMPLATE = 12, 2
UP, DOWN = parse_site("attention_0"), parse_site("residuals_1")


class FamilyChat(LinearChat):
    @property
    def d_model(self) -> int:
        return D_MODEL


@pytest.fixture(scope="module", params=["llama", "gemma2", "gpt_neox", "gpt2"])
def chat(request: pytest.FixtureRequest) -> FamilyChat:
    return FamilyChat(tiny(request.param).model, None, request.param)


def experiment_on(chat: FamilyChat, names: Sequence[str], positions: str) -> Experiment:
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 9, size=10)
    saes = {
        parse_site(name): HandSae(
            rng.normal(size=(D_MODEL, D_SAE)), 0.1 * rng.normal(size=(D_SAE, D_MODEL)), 0.1 * rng.normal(size=D_MODEL)
        )
        for name in names
    }
    return Experiment(
        chat,
        [prompt(*rng.integers(30, size=length), n_template=N_TEMPLATE) for length in lengths],
        ["hate"] * 10,
        np.arange(10) < 5,
        saes,
        [3, 4],
        positions=positions,
        batch_size=4,
    )


def whole_run(experiment: Experiment, row: int, edits: dict[Site, Tensor]) -> tuple[Tensor, dict[Site, Tensor]]:
    """Run one unpadded prompt from its first token, adding to sites at the attributed positions; m, and the sites."""
    seen: dict[Site, Tensor] = {}

    def add(site: Site, x: Tensor) -> Tensor:
        change = edits.get(site)
        if change is not None:
            pad = torch.zeros(1, x.shape[1] - change.shape[0], x.shape[2])
            x = x + torch.cat([pad, change[None]], 1)
        seen[site] = x
        return x

    hooks = {site: lambda x, site=site: add(site, x) for site in experiment.sites}
    with editing(experiment.chat.model, hooks):
        logits = experiment.chat.model(torch.tensor([experiment.encoded[row].ids])).logits[:, -1]
    return refusal_score(logits, experiment.refusal_tokens)[0], seen


@pytest.mark.parametrize("positions", ["last", "template"])
def test_activations_and_gradients_are_those_of_whole_unpadded_prompts(chat: FamilyChat, positions: str) -> None:
    experiment = experiment_on(chat, ["attention_0", "mlp_1", "residuals_2"], positions)
    n = experiment.n_positions
    for row in range(10):
        changes = {site: torch.zeros(n, D_MODEL, requires_grad=True) for site in experiment.sites}
        m, seen = whole_run(experiment, row, changes)
        gradients = torch.autograd.grad(m, list(changes.values()))
        torch.testing.assert_close(experiment.readings.scores[row], m.detach(), atol=1e-4, rtol=1e-4)
        for site, gradient in zip(changes, gradients, strict=True):
            torch.testing.assert_close(
                experiment.readings.x[site][row], seen[site][0, -n:].detach(), atol=1e-4, rtol=1e-4
            )
            torch.testing.assert_close(experiment.readings.g[site][row], gradient, atol=1e-4, rtol=1e-3)


def test_ig_is_complete(chat: FamilyChat) -> None:
    experiment = experiment_on(chat, ["mlp_1", "residuals_2"], "template")
    found, total = ig.attribute(experiment, steps=50), exact.total_effect(experiment)
    for site in experiment.sites:
        np.testing.assert_allclose(found[site].total, total[site], atol=0.02)


def test_exact_is_the_fall_of_a_whole_run_without_the_feature(chat: FamilyChat) -> None:
    experiment = experiment_on(chat, ["attention_0", "residuals_1"], "template")
    found = exact.attribute(experiment, candidates=3)
    estimate = atp.attribute(experiment)
    for site in experiment.sites:
        feature = int(exact.ranked(estimate[site], 1)[0])
        for row in range(10):
            rows = np.array([row])
            change = (experiment.split(site, rows).f - experiment.baseline_rows(site, rows)[0])[0, :, feature]
            taken = -change[:, None] * experiment.saes[site].directions[feature]
            fall = experiment.readings.scores[row] - whole_run(experiment, row, {site: taken})[0]
            assert found[site].values.toarray()[row, feature] == pytest.approx(float(fall), abs=1e-3)


def test_edges_are_the_derivatives_of_whole_runs_at_the_same_position(chat: FamilyChat) -> None:
    experiment = experiment_on(chat, [str(UP), str(DOWN)], "template")
    nodes = tuple(Node(str(site), feature, 1.0, 1.0) for site in (UP, DOWN) for feature in (*range(D_SAE), ERROR))
    circuit = Circuit("m", "hate", "all", "atp", 5, True, 1.0, "", nodes=nodes)
    found = {(edge.up, edge.down): edge.weight for edge in with_edges(experiment, [circuit], threshold=0.0)[0].edges}
    expected = np.zeros((D_SAE + 1, D_SAE + 1))
    for row in range(5):
        expected += _edges_of_whole_run(experiment, row) / 5
    names = [*range(D_SAE), ERROR]
    table = [[found.get((f"{UP}/{up}", f"{DOWN}/{down}"), 0.0) for down in names] for up in names]
    np.testing.assert_allclose(table, expected, atol=1e-4, rtol=1e-3)
    assert np.abs(expected).max() > 0.01


def _edges_of_whole_run(experiment: Experiment, row: int) -> np.ndarray:
    """(change of up) . d (down's worth) / d x_up at each position by itself, summed: [up, down]."""
    rows = np.array([row])
    _, f, e = (part[0] for part in experiment.split(UP, rows))
    f0, e0 = (part[0] for part in experiment.baseline_rows(UP, rows))
    written = torch.cat([(f - f0)[..., None] * experiment.saes[UP].directions, (e - e0)[:, None]], 1)
    g = experiment.readings.g[DOWN][row]
    sae = experiment.saes[DOWN]

    def worth(change: Tensor) -> Tensor:
        x = whole_run(experiment, row, {UP: change})[1][DOWN][0, -N_TEMPLATE:]
        codes = sae.encode(x)
        error = ((x - sae.decode(codes)) * g).sum(-1, keepdim=True)
        return torch.cat([codes * (g @ sae.directions.T), error], -1)  # [n_positions, d_sae + 1]

    jacobian = torch.autograd.functional.jacobian(worth, torch.zeros(N_TEMPLATE, D_MODEL))
    assert isinstance(jacobian, Tensor)
    return torch.einsum("tud,tktd->uk", written, jacobian).numpy()


def test_blocks_that_run_again_change_nothing(chat: FamilyChat, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured() -> tuple[list[np.ndarray], list[Edge]]:
        experiment = experiment_on(chat, ["attention_0", "mlp_1", "residuals_2"], "template")
        attributed = [method.attribute(experiment) for method in (atp, ig)]
        nodes = tuple(Node(str(site), feature, 1.0, 1.0) for site in experiment.sites for feature in (0, 3, ERROR))
        circuit = Circuit("m", "hate", "all", "atp", 5, True, 1.0, "", nodes=nodes)
        (joined,) = with_edges(experiment, [circuit], threshold=0.0)
        values = [found[site].values.toarray() for found in attributed for site in experiment.sites]
        levels = strongest(experiment, [circuit]).chosen.values() if has_neurons(chat.model) else ()
        return [*values, *(chosen.numpy() for chosen in levels)], list(joined.edges)

    usual, edges = measured()
    monkeypatch.setattr(gradients, "LARGE", 0)
    again, edges_again = measured()
    assert len(edges) > 10
    assert edges_again == edges
    for one, other in zip(usual, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_model_in_bfloat16_goes_the_whole_way(chat: FamilyChat) -> None:
    small = FamilyChat(copy.deepcopy(chat.model).to(torch.bfloat16), None, "bfloat16")
    experiment = experiment_on(small, ["attention_0", "mlp_1", "residuals_2"], "template")
    importances = atp.attribute(experiment)
    circuits = list(
        circuits_of(
            experiment, importances, model="m", method="atp", fingerprint="", node_threshold=0.1, edge_threshold=0.01
        ).values()
    )
    assert circuits[0].edges
    exact.attribute(experiment, candidates=2)
    ig.attribute(experiment, steps=2)
    found = evaluate(experiment, circuits, [circuit_means(experiment, importances, circuit) for circuit in circuits])
    assert found["hate", "all"].n_prompts == 5
    assert len(behaviour(experiment, experiment, circuits, rng=np.random.default_rng(0))) == 13
