from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from refusal.circuits.attribution import atp
from refusal.circuits.circuit import ERROR, Circuit, Node
from refusal.circuits.discover import circuit_means
from refusal.circuits.evaluation import area, curve_sizes, evaluate
from refusal.circuits.experiment import Experiment
from refusal.circuits.interventions import Live, leaving, live_in
from refusal.models.hooks import editing
from refusal.models.sites import parse_site
from tests.circuits.linear import HandSae, linear_chat, prompt, random_experiment

SITE = parse_site("mlp_0")


def hand_experiment() -> Experiment:
    """d_model 3; the MLP writes x, m = 2 (4 x_0 + 2 x_1 + x_2); the SAE knows x_0 and x_1, and x_2 is its error.

    The refused prompt is (1, 1, 1), the complied one 0: m(M) = 14, and with the MLP at its baseline, m(0) = 7.
    """
    chat = linear_chat([[1, 1, 1], [0, 0, 0]], [(np.zeros((3, 3)), np.eye(3))], [4, 2, 1])
    axes = np.eye(3)[:2]
    return Experiment(
        chat,
        [prompt(0, 0), prompt(0, 1), prompt(0, 1)],
        ["hate"] * 3,
        np.array([True, False, False]),
        {SITE: HandSae(axes.T, axes)},
        [0],
    )


def circuit_of(*features: int, side: str = "all") -> Circuit:
    nodes = tuple(Node("mlp_0", feature, 1.0, 1.0) for feature in features)
    return Circuit("m", "hate", side, "atp", 1, True, 1.0, "", nodes=nodes)


def evaluated(circuit: Circuit):
    experiment = hand_experiment()
    means = circuit_means(experiment, atp.attribute(experiment), circuit)
    return evaluate(experiment, [circuit], [means])[circuit.key]


def test_shares_by_hand() -> None:
    found = evaluated(circuit_of(0))
    assert (found.n_prompts, found.score_model, found.score_baseline) == (1, 14, 7)
    # Of the MLP's 7, feature 0 gives 4, feature 1 gives 2, the error 1.
    assert found.faithfulness == pytest.approx(4 / 7)
    assert found.faithfulness_with_errors == pytest.approx(5 / 7)
    assert found.completeness == pytest.approx(3 / 7)
    assert found.completeness_with_errors == pytest.approx(3 / 7)  # the error was not removed anyway
    assert evaluated(circuit_of(0, ERROR)).completeness == pytest.approx(2 / 7)
    assert evaluated(circuit_of(0, ERROR)).completeness_with_errors == pytest.approx(3 / 7)
    assert evaluated(circuit_of(0, 1, ERROR)).faithfulness == pytest.approx(1)


def test_the_curve_grows_from_the_strongest_node_to_all() -> None:
    found = evaluated(circuit_of(0))
    assert [point.share for point in found.curve] == [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]
    assert {point.n_nodes: round(point.faithfulness * 7, 3) for point in found.curve} == {1: 4, 2: 6, 3: 7}
    assert {point.n_nodes: round(point.completeness * 7, 3) for point in found.curve} == {1: 3, 2: 1, 3: 0}
    # From log 1 to log 2 the curve is 5/7 on average, from log 2 to log 3 it is 6.5/7.
    assert found.cpr is not None
    assert found.cpr == pytest.approx((np.log(2) * 5 / 7 + np.log(3 / 2) * 6.5 / 7) / np.log(3))
    assert found.cmd == pytest.approx(1 - found.cpr)  # the curve stays under 1


def test_a_small_effect_is_undefined() -> None:
    experiment = hand_experiment()
    experiment.chat.model.u.mul_(0.07)  # 0.49 nats
    circuit = circuit_of(0)
    found = evaluate(experiment, [circuit], [circuit_means(experiment, atp.attribute(experiment), circuit)])[
        circuit.key
    ]
    assert found.score_model == pytest.approx(0.98)
    assert (found.faithfulness, found.completeness, found.cpr, found.curve) == (None, None, None, ())


def test_a_circuit_that_is_none_is_undefined() -> None:
    found = evaluated(replace(circuit_of(), has_circuit=False))
    assert found.faithfulness is None


def test_a_category_without_heldout_prompts_is_undefined() -> None:
    experiment = hand_experiment()
    circuit = circuit_of(0)
    means = circuit_means(experiment, atp.attribute(experiment), circuit)
    heldout = replace(experiment.subset(np.array([1, 2])), baseline=experiment.reference)
    found = evaluate(heldout, [circuit], [means])[circuit.key]
    assert (found.n_prompts, found.faithfulness) == (0, None)


@pytest.mark.parametrize("positions", ["last", "template"])
def test_all_nodes_live_is_the_model_and_none_is_the_baseline(positions: str) -> None:
    experiment = random_experiment(7, activation=nn.GELU(), positions=positions)
    everything = Live({site: torch.ones(1, 7, dtype=torch.bool) for site in experiment.sites})
    last, model = experiment.sites[-1], experiment.chat.model
    for batch in experiment.batches():
        owner = np.zeros(len(batch.index), int)
        with torch.no_grad(), editing(model, leaving(experiment, batch.index, owner, everything)):
            torch.testing.assert_close(experiment.score(batch), experiment.readings.scores[batch.index])
        with torch.no_grad(), editing(model, leaving(experiment, batch.index, owner, everything.inverted())):
            expected = experiment.baseline_x(last, batch.index)[:, -1] @ experiment.chat.model.u
            torch.testing.assert_close(experiment.score(batch), expected)


def test_features_are_computed_from_the_stream_as_it_is_changed() -> None:
    # Only residuals_1 is live; it reads what the sites before it left: their baselines, on every prompt of a category.
    experiment = random_experiment(8)
    last = experiment.sites[-1]
    live = Live({site: torch.full((1, 7), site == last) for site in experiment.sites})
    for batch in experiment.batches():
        edits = leaving(experiment, batch.index, np.zeros(len(batch.index), int), live)
        with torch.no_grad(), editing(experiment.chat.model, edits):
            m = experiment.score(batch)
        before, attention, mlp = (experiment.baseline_x(experiment.sites[i], batch.index)[:, -1] for i in (2, 3, 4))
        torch.testing.assert_close(m, (before + attention + mlp) @ experiment.chat.model.u)


def test_live_nodes_are_found_by_circuit() -> None:
    live = live_in([circuit_of(1), circuit_of(0, ERROR)], {SITE: 2})
    assert live.nodes[SITE].tolist() == [[False, True, False], [True, False, True]]
    assert live.inverted().with_errors().nodes[SITE].tolist() == [[True, False, True], [False, True, True]]


def test_curve_sizes_are_those_of_mib() -> None:
    assert curve_sizes(2000).tolist() == [2, 4, 10, 20, 40, 100, 200, 400, 1000, 2000]
    assert set(curve_sizes(1)) == {1}


def test_all_nodes_are_the_whole_model_though_some_have_no_importance() -> None:
    # f_1 is 0 on every prompt: of the three nodes two have importance, and the third comes with the last size.
    experiment = hand_experiment()
    experiment.chat.model.embedding[:, 1] = 0
    circuit = circuit_of(0)
    means = circuit_means(experiment, atp.attribute(experiment), circuit)
    found = evaluate(experiment, [circuit], [means])[circuit.key]
    assert np.count_nonzero(means[SITE]) == 2
    assert (found.curve[-1].n_nodes, found.curve[-1].faithfulness) == (3, pytest.approx(1))


def test_area_is_normalised_by_the_axis() -> None:
    assert area(np.array([1, 10, 100]), np.array([0.0, 1.0, 1.0])) == pytest.approx(0.75)
    assert area(np.array([1, 1]), np.array([0.5, 0.5])) == 0.5
