from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from refusal.circuits.attribution import atp
from refusal.circuits.circuit import ERROR, Circuit, Node
from refusal.circuits.edges import with_edges
from refusal.circuits.experiment import Experiment
from refusal.models.sites import parse_site
from tests.circuits.linear import HandSae, linear_chat, prompt, random_experiment


def circuit_with(nodes: list[tuple[str, int]], category: str = "hate", side: str = "all") -> Circuit:
    return Circuit(
        "m",
        category,
        side,
        "atp",
        1,
        True,
        1.0,
        "",
        nodes=tuple(Node(site, feature, 1.0, 1.0) for site, feature in nodes),
    )


def all_nodes(experiment: Experiment, category: str, side: str = "all") -> Circuit:
    names = [(str(site), feature) for site in experiment.sites for feature in (*range(6), ERROR)]
    return circuit_with(names, category, side)


def weights(circuit: Circuit) -> dict[tuple[str, str], float]:
    return {(edge.up, edge.down): edge.weight for edge in circuit.edges}


def chain(names: list[str]) -> Experiment:
    """d_model 1, both blocks: attention adds 2 x, the MLP adds 3 x; m = 5 x; the SAEs are perfect; x = 1 against 0.

    x: 1 -> 3 (attention_0 wrote 2) -> 12 (mlp_0 wrote 9) -> 36 (attention_1: 24) -> 144 (mlp_1: 108).
    """
    chat = linear_chat([[1]], [([[2]], [[3]])] * 2, [5])
    saes = {parse_site(name): HandSae([[1]], [[1]]) for name in names}
    return Experiment(chat, [prompt(0, 0)], ["hate"], np.array([True]), saes, [0], baseline="zero")


def test_every_edge_of_a_chain_by_hand() -> None:
    names = ["attention_0", "mlp_0", "residuals_0", "mlp_1"]
    circuit = with_edges(chain(names), [circuit_with([(name, 0) for name in names])], threshold=0.0)[0]
    # Per unit: dm/d mlp_1 = 5. dm/d residuals_0 = 5 * 3 * 4 = 60, 45 of it through mlp_1 (attention_1 is not cut).
    assert weights(circuit) == pytest.approx(
        {
            ("attention_0/0", "mlp_0/0"): 2 * 3 * 60,  # mlp_0 reads attention_0 with 3, and each unit of it counts 60
            ("attention_0/0", "residuals_0/0"): 2 * 1 * 60,
            ("mlp_0/0", "residuals_0/0"): 9 * 1 * 60,
            ("residuals_0/0", "mlp_1/0"): 12 * 9 * 5,  # (1 + 2 of attention_1) read with 3
        }
    )
    assert [edge.scaled for edge in circuit.edges] == [1, 1, 1, 1]  # scaled within each pair of sites


def test_without_a_site_between_the_path_is_one_edge() -> None:
    circuit = with_edges(
        chain(["attention_0", "mlp_1"]), [circuit_with([("attention_0", 0), ("mlp_1", 0)])], threshold=0
    )[0]
    # attention_0 -> 1 by itself + 3 through mlp_0 = 4, times 9 into mlp_1, times 5.
    assert weights(circuit) == pytest.approx({("attention_0/0", "mlp_1/0"): 2 * 4 * 9 * 5})


def two_features() -> Experiment:
    """d_model 2; attention writes (1, -1), the MLP adds twice the first to the first and the second to the second."""
    mlp = [[2, 0], [0, 1]]
    chat = linear_chat([[1, 1]], [([[1, 0], [0, -1]], mlp)], [1, 1])
    axes = [[1, 0, -1, 0], [0, 1, 0, -1]]
    sae = HandSae(axes, np.transpose(axes))
    saes = {parse_site(name): sae for name in ("attention_0", "mlp_0")}
    return Experiment(chat, [prompt(0, 0)], ["hate"], np.array([True]), saes, [0], baseline="zero")


def test_the_sign_is_kept_and_scaled_by_the_strongest_of_two_sites() -> None:
    # Stream (1, 1) + attention (1, -1) = (2, 0): feature 0 is 1, and so is feature 3, which points down.
    # The MLP reads feature 0 with 2. It wrote (4, 0), so its feature 1 is off.
    nodes = [("attention_0", 0), ("attention_0", 3), ("mlp_0", 0), ("mlp_0", 1)]
    circuit = with_edges(two_features(), [circuit_with(nodes)], threshold=0.01)[0]
    assert weights(circuit) == pytest.approx({("attention_0/0", "mlp_0/0"): 2.0})
    # In a stream of (1, 2) the MLP's second output is live, and feature 3 counts against it.
    experiment = two_features()
    experiment.chat.model.embedding = torch.tensor([[1.0, 2.0]])
    experiment.chat.model.model.layers[0].self_attn.weight.data[1, 1] = -0.5
    circuit = with_edges(experiment, [circuit_with(nodes)], threshold=0.01)[0]
    # Feature 3 is 1 and points to (0, -1); the MLP passes it on with 1.
    assert weights(circuit) == pytest.approx({("attention_0/0", "mlp_0/0"): 2.0, ("attention_0/3", "mlp_0/1"): -1.0})
    assert {edge.scaled for edge in circuit.edges} == {1.0, -0.5}
    kept = with_edges(experiment, [circuit_with(nodes)], threshold=0.6)[0]
    assert list(weights(kept)) == [("attention_0/0", "mlp_0/0")]


@pytest.mark.parametrize("activation", [nn.Identity(), nn.GELU()])
def test_edges_into_a_site_that_all_passes_through_sum_to_the_importance(activation: nn.Module) -> None:
    # All that attention_1 does passes through residuals_1, and all that residuals_0 does, too: over all of that site's
    # nodes, features and error, the edges of an upstream node sum to its atp importance. mlp_1 stays uncut.
    experiment = random_experiment(4, activation=activation)
    experiment.saes = {parse_site(name): experiment.saes[parse_site(name)] for name in ("attention_1", "residuals_1")}
    experiment = replace(experiment)
    importances = atp.attribute(experiment)[parse_site("attention_1")]
    circuits = with_edges(experiment, [all_nodes(experiment, name) for name in ("hate", "privacy")], threshold=0.0)
    for circuit in circuits:
        means = importances.mean(experiment.rows(circuit.category, refused=True))
        for feature in (*range(6), ERROR):
            total = sum(edge.weight for edge in circuit.edges if edge.up == f"attention_1/{feature}")
            assert total == pytest.approx(means[feature], abs=1e-4)


def test_circuits_of_different_categories_and_sides_do_not_mix() -> None:
    experiment = random_experiment(5, baseline="zero")
    circuits = [
        all_nodes(experiment, "hate", "safe"),
        circuit_with([("mlp_0", 2), ("mlp_1", ERROR)], "privacy", "toxic"),
        circuit_with([], "privacy", "safe"),
    ]
    together = with_edges(experiment, circuits, threshold=0.0)
    for circuit, alone in zip(circuits, together, strict=True):
        apart = with_edges(experiment, [circuit], threshold=0.0)[0]
        assert weights(apart) == pytest.approx(weights(alone), abs=1e-5)
    assert together[2].edges == ()


def test_no_edge_joins_two_positions() -> None:
    # With two template positions whose tokens do not mix, edges are the sum of what each position gives by itself.
    last = random_experiment(6)
    last.encoded = [prompt(0, i, i, n_template=2) for i in range(12)]
    both = replace(last, positions="template")
    nodes = [all_nodes(last, "hate")]
    once, twice = (weights(with_edges(experiment, nodes, threshold=0.0)[0]) for experiment in (last, both))
    assert twice == pytest.approx(once, abs=1e-5)  # the first position has no effect on m: g is 0 there


def test_a_category_without_prompts_has_no_edges() -> None:
    experiment = random_experiment()
    assert with_edges(experiment, [circuit_with([("mlp_0", 0)], "sexual")], threshold=0.0)[0].edges == ()
