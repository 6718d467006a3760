from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from refusal.circuits.behaviour import Behaviour, behaviour
from refusal.circuits.circuit import ERROR, Circuit, Node
from refusal.circuits.experiment import Experiment
from refusal.models.sites import parse_site
from tests.circuits.linear import HandSae, linear_chat, prompt, random_experiment

SITE = parse_site("mlp_0")


def hand_experiment() -> Experiment:
    """d_model 3; the MLP writes 3 x; m = (x + write) . (4, 2, 1), refused if positive.

    The refused prompt is (1, 1, 1), the complied ones are its opposite. The SAE knows the first two axes where they are
    positive: f = (3, 3) and e = (0, 0, 3) on the refused prompt, f = 0 and e = (-3, -3, -3) on the complied ones.
    """
    chat = linear_chat([[1, 1, 1], [-1, -1, -1]], [(np.zeros((3, 3)), 3 * np.eye(3))], [4, 2, 1])
    axes = np.eye(3)[:2]
    saes = {SITE: HandSae(axes.T, axes)}
    return Experiment(
        chat, [prompt(0, 0), prompt(0, 1), prompt(0, 1)], ["hate"] * 3, np.array([True, False, False]), saes, [0]
    )


def measured(*features: int) -> dict[tuple[str, str], Behaviour]:
    experiment = hand_experiment()
    nodes = tuple(Node("mlp_0", feature, 1.0, 1.0) for feature in features)
    circuit = Circuit("m", "hate", "all", "atp", 1, True, 1.0, "", nodes=nodes)
    lines = behaviour(experiment, experiment, [circuit], rng=np.random.default_rng(0))
    return {(line.prompts, line.intervention): line for line in lines}


def complied(experiment: Experiment, intervention: str) -> Behaviour:
    circuit = Circuit("m", "hate", "all", "atp", 1, True, 1.0, "", nodes=(Node("mlp_0", 0, 1.0, 1.0),))
    lines = behaviour(experiment, experiment, [circuit], rng=np.random.default_rng(0))
    return next(line for line in lines if (line.prompts, line.intervention) == ("complied", intervention))


def test_everything_by_hand() -> None:
    found = measured(0, 1, ERROR)
    scores = {key: (line.score, line.refusal_rate) for key, line in found.items()}
    # The stream itself holds 7 or -7, the write 21 or -21.
    assert scores["refused", "none"] == (28, 1)
    assert scores["refused", "circuit removed"] == (7 - 21, 0)
    assert scores["refused", "errors removed"] == (7 - 3, 1)  # (3, 3, 0) + (-3, -3, -3)
    assert scores["refused", "difference in means removed"] == pytest.approx((7 - 21, 0), abs=1e-5)
    assert scores["complied", "none"] == (-28, 0)
    assert scores["complied", "circuit switched on"] == (-7 + 21, 1)
    assert found["complied", "none"].n_prompts == 2
    # The neurons are the write: 24, 12 and 6 nats of importance. As many as features, so the first two: (-3, -3, 3).
    assert scores["refused", "neurons removed"] == (7 - 12 - 6 + 3, 0)


def test_a_response_refuses_by_its_phrases_and_not_by_its_score() -> None:
    experiment = hand_experiment()
    circuit = Circuit("m", "hate", "all", "atp", 1, True, 1.0, "")
    lines = behaviour(experiment, experiment, [circuit], rng=np.random.default_rng(0), phrases=["Sure"])
    rates = {line.prompts: (line.refusal_rate, line.score) for line in lines if line.intervention == "none"}
    assert rates == {"refused": (0, 28), "complied": (1, -28)}


def test_the_divergence_on_complied_prompts_by_hand() -> None:
    experiment = hand_experiment()
    experiment.chat.model.embedding = torch.tensor([[1.0, 1, 1], [0.25, 0, 0]])
    experiment.baseline = "zero"
    # A complied prompt has m = 4 * (0.25 + 0.75) = 4, and 1 without what the MLP writes; two tokens.
    p, q = 1 / (1 + np.exp(-4)), 1 / (1 + np.exp(-1))
    expected = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert complied(experiment, "circuit removed").kl == pytest.approx(expected, rel=1e-4)
    assert complied(experiment, "neurons removed").kl == pytest.approx(expected, rel=1e-4)
    assert complied(experiment, "errors removed").kl == pytest.approx(0, abs=1e-6)
    assert complied(experiment, "none").kl == 0


def test_what_is_at_the_baseline_is_moved_by_nothing() -> None:
    assert complied(hand_experiment(), "circuit removed").kl == pytest.approx(0, abs=1e-6)


def test_a_model_whose_neurons_are_not_known_has_no_such_line() -> None:
    experiment = hand_experiment()
    del experiment.chat.model.model.layers[0].mlp.down_proj
    circuit = Circuit("m", "hate", "all", "atp", 1, True, 1.0, "")
    lines = behaviour(experiment, experiment, [circuit], rng=np.random.default_rng(0))
    assert "neurons removed" not in {line.intervention for line in lines}


def test_random_features_stand_in_at_the_same_site() -> None:
    found = measured(0)
    assert found["refused", "circuit removed"].score == pytest.approx(7 + 9)  # 2 * 3 + 3 are left
    assert found["refused", "random features removed"].score == pytest.approx(7 + 15)  # the other one: 4 * 3 + 3 are


def test_a_category_without_prompts_of_a_kind_has_no_line() -> None:
    train = random_experiment()
    circuits = [Circuit("m", name, "all", "atp", 3, True, 1.0, "") for name in ("hate", "privacy")]
    heldout = replace(train.subset(train.rows("hate", refused=True)), baseline=train.reference)
    lines = behaviour(train, heldout, circuits, rng=np.random.default_rng(0))
    assert {(line.category, line.prompts) for line in lines} == {("hate", "refused")}
