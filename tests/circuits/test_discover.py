from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from refusal.circuits.attribution import atp
from refusal.circuits.discover import circuit_means, circuits_of, effect
from refusal.circuits.importances import Importances
from refusal.prompts.prompt import SPLITS
from tests.circuits.linear import random_experiment

NAMES = {"model": "m", "method": "atp", "fingerprint": "0123456789ab", "node_threshold": 0.1, "edge_threshold": 0.01}


def test_one_circuit_for_each_category_with_what_made_it() -> None:
    experiment = random_experiment()
    importances = atp.attribute(experiment)
    circuits = circuits_of(experiment, importances, **NAMES)  # type: ignore[arg-type]
    assert list(circuits) == [("hate", "all"), ("privacy", "all")]
    circuit = circuits["hate", "all"]
    assert (circuit.model, circuit.n_prompts, circuit.fingerprint) == ("m", 3, "0123456789ab")
    means = circuit_means(experiment, importances, circuit)
    assert circuit.effect == pytest.approx(effect(means))
    for site in experiment.sites:
        strongest = np.abs(means[site][:-1]).max()
        assert circuit.scales[str(site)] == pytest.approx(strongest)
        assert set(circuit.features(str(site))) == set(np.flatnonzero(np.abs(means[site][:-1]) >= 0.1 * strongest))
    ids = {node.id for node in circuit.nodes}
    assert circuit.edges
    assert all(edge.up in ids and edge.down in ids for edge in circuit.edges)


def test_separate_circuits_need_the_baseline_zero() -> None:
    experiment = random_experiment()
    with pytest.raises(ValueError, match="zero"):
        circuits_of(experiment, atp.attribute(experiment), **NAMES, sides=SPLITS)  # type: ignore[arg-type]


def test_separate_circuits_are_over_the_prompts_of_their_splits() -> None:
    experiment = random_experiment(baseline="zero")
    experiment.refused = experiment.refused.copy()
    experiment.refused[[3, 7]] = True
    importances = atp.attribute(experiment)
    circuits = circuits_of(experiment, importances, **NAMES, sides=SPLITS)  # type: ignore[arg-type]
    # Prompts 2, 6 and 10 are safe ones, of ``hate``; 3, 7 and 11 are hard ones, of ``privacy``, two of them refused.
    rows = {
        ("hate", "safe"): [2, 6, 10],
        ("hate", "hard"): [],
        ("hate", "toxic"): [0, 4, 8],
        ("privacy", "safe"): [],
        ("privacy", "hard"): [3, 7],
        ("privacy", "toxic"): [1, 5, 9],
    }
    assert {key: circuit.n_prompts for key, circuit in circuits.items()} == {key: len(own) for key, own in rows.items()}
    site = experiment.sites[0]
    for key, circuit in circuits.items():
        expected = importances[site].values.toarray()[rows[key]].sum(0) / max(len(rows[key]), 1)
        for node in circuit.nodes:
            if node.site == str(site) and node.feature >= 0:
                assert node.importance == pytest.approx(expected[node.feature], rel=1e-4)


@pytest.mark.parametrize(("strength", "has_circuit"), [(0.04, False), (0.06, True)])
def test_a_safe_side_without_effect_has_no_circuit(strength: float, has_circuit: bool) -> None:
    experiment = random_experiment(baseline="zero")
    values = np.zeros((12, 6), np.float32)
    values[:, 1] = np.where(experiment.refused, 1.0, strength)
    importances = {
        site: Importances(str(site), sparse.csr_array(values), np.zeros(12, np.float32)) for site in experiment.sites
    }
    circuits = circuits_of(experiment, importances, **NAMES, sides=SPLITS)  # type: ignore[arg-type]
    assert circuits["hate", "toxic"].has_circuit
    assert circuits["hate", "safe"].has_circuit is has_circuit
    assert bool(circuits["hate", "safe"].nodes) is has_circuit
    assert circuits["hate", "safe"].effect == pytest.approx(strength)


def test_a_category_that_is_never_refused_has_no_circuit() -> None:
    experiment = random_experiment()
    experiment.refused = np.asarray(experiment.categories) == "hate"
    circuits = circuits_of(experiment, atp.attribute(experiment), **NAMES)  # type: ignore[arg-type]
    assert circuits["hate", "all"].has_circuit
    assert not circuits["privacy", "all"].has_circuit
    assert circuits["privacy", "all"].n_prompts == 0
