from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from refusal.circuits.circuit import ERROR, Circuit, Node
from refusal.circuits.experiment import Experiment
from refusal.circuits.steer import show
from refusal.circuits.steering import Steered, effects, levels, steer
from refusal.models.refusal_score import REFUSAL_PHRASES
from refusal.models.sites import parse_site
from tests.circuits.test_behaviour import hand_experiment

EVERYTHING = (0, 1, ERROR)


def circuit_of(*features: int) -> Circuit:
    nodes = tuple(Node("mlp_0", feature, 1.0, 1.0) for feature in features)
    return Circuit("m", "hate", "all", "atp", 1, True, 1.0, "", nodes=nodes)


def steered(experiment: Experiment, *features: int, factor: float = 1.0) -> list[Steered]:
    texts = [f"prompt {i}" for i in range(len(experiment.encoded))]
    circuit = circuit_of(*features)
    return steer(experiment, texts, circuit, factor=factor, phrases=REFUSAL_PHRASES, n_tokens=2)


@pytest.mark.parametrize(
    ("features", "factor", "score"),
    [
        (EVERYTHING, 1.0, 7 - 21),  # the stream holds 7; the write (3, 3, 3) becomes (-3, -3, -3)
        (EVERYTHING, 0.5, 7 + 0),
        (EVERYTHING, 2.0, 7 - 63),
        (EVERYTHING, 0.0, 28),
        ((0,), 1.0, 7 + 9),  # f_0 goes to 0, what is left of the write is (0, 3, 3)
        ((), 1.0, 28),
    ],
)
def test_a_circuit_is_taken_out_as_far_as_the_factor_says(
    features: tuple[int, ...], factor: float, score: float
) -> None:
    first, *_ = steered(hand_experiment(), *features, factor=factor)
    assert (first.before.score, first.before.refused, first.before.response) == (28, True, "I cannot.")
    assert first.after.score == pytest.approx(score)
    assert (first.after.refused, first.after.response) == ((True, "I cannot.") if score > 0 else (False, "Sure."))


def test_a_circuit_is_switched_on_in_any_category() -> None:
    train = hand_experiment()
    refused = train.subset(train.rows("hate", refused=True))
    others = replace(
        train, categories=["hate", "fraud", "fraud"], baseline=levels(refused, ["fraud", "hate"], add=True)
    )
    found = steered(others, *EVERYTHING)
    # The stream of a complied prompt holds -7, its write becomes that of the refused one, 21.
    assert [(one.category, one.after.score, one.after.refused) for one in found] == [
        ("hate", 28, True),
        ("fraud", 14, True),
        ("fraud", 14, True),
    ]


def test_prompts_keep_their_order_whatever_their_lengths() -> None:
    experiment = hand_experiment()
    longer = experiment.encoded[0]._replace(ids=[0, 0, 0, 0], kinds=np.zeros(4, np.uint8))
    experiment.encoded = [longer, *experiment.encoded[1:]]
    experiment.batch_size = 1
    assert [(one.prompt, one.before.score) for one in steered(experiment, 0)] == [
        ("prompt 0", 28),
        ("prompt 1", -28),
        ("prompt 2", -28),
    ]


def test_effects_are_means_by_category() -> None:
    experiment = replace(hand_experiment(), categories=["hate", "hate", "fraud"], baseline=hand_experiment().reference)
    experiment.baseline = replace(hand_experiment().reference, categories=("hate", "fraud"))
    for by_site in (experiment.reference.features, experiment.reference.errors):
        by_site[parse_site("mlp_0")] = by_site[parse_site("mlp_0")].expand(2, -1, -1)
    fraud, hate = effects(steered(experiment, *EVERYTHING))
    assert (fraud.category, fraud.n_prompts, fraud.score, fraud.refusal_rate) == ("fraud", 1, (-28, -28), (0, 0))
    assert (hate.category, hate.n_prompts, hate.refusal_rate) == ("hate", 2, (0.5, 0))
    assert hate.score == (0, pytest.approx((-14 - 28) / 2))


@pytest.mark.parametrize(("action", "did"), [("remove", "refused"), ("add", "complied with")])
def test_a_category_without_prompts_is_said(capsys: pytest.CaptureFixture[str], action: str, did: str) -> None:
    effect = {"category": "fraud", "n_prompts": 2, "score": (5.0, -5.0), "refusal_rate": (1.0, 0.5)}
    found = {"model": "m", "category": "hate", "action": action, "factor": 2.0, "nodes": [], "prompts": []}
    show({**found, "effects": [effect]})
    out = capsys.readouterr().out
    assert f"no held-out prompt of hate was {did}" in out
    assert "factor 2" in out
    assert out.split()[-6:] == ["fraud", "2", "+5.0", "-5.0", "100%", "50%"]


def test_without_gradients_the_levels_are_the_same() -> None:
    experiment = hand_experiment()
    without = replace(experiment, gradients=False)
    for site in experiment.sites:
        assert without.readings.g[site].abs().max() == 0
        for name in ("features", "errors"):
            assert getattr(without.reference, name)[site].equal(getattr(experiment.reference, name)[site])
