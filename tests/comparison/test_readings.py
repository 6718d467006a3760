"""The readings of transfer: what each knocks out, and how it goes to JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from refusal.circuits.circuit import ERROR, Circuit, Node
from refusal.comparison.readings import (
    circuit_drops,
    direct_reading,
    number,
    numbers,
    reading,
)
from refusal.comparison.transfer import Drops, measure_direct
from refusal.comparison.verdict import RESIDUAL_SD
from refusal.models.sites import Site
from tests.comparison.hand import CATEGORY, HALF, two_mechanisms

MLP_1 = Site("mlp", 1)
ROWS, HALVES = np.array(CATEGORY), np.array(HALF)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def drops(values: Any) -> Drops:
    """Drops of a and b knocked out, [2, 16], on eight prompts of each."""
    return Drops(1, np.array(values, dtype=float), ROWS, HALVES)


def even(own: float, off: float) -> np.ndarray:
    return np.where(np.arange(2)[:, None] == ROWS, own, off)


def node(feature: int) -> Node:
    return Node(str(MLP_1), feature, 1.0, 1.0)


def circuit(category: str, *nodes: Node) -> Circuit:
    return Circuit("m", category, "all", "atp", 8, bool(nodes), 1.0, "0" * 12, nodes=nodes)


def test_a_reading_of_even_drops_has_the_residual_error_alone() -> None:
    found = reading(drops(even(10, 4)), [0, 1], bootstrap=200, rng=rng())
    assert found["index"] == pytest.approx(0.4)
    assert found["low"] == pytest.approx(0.4 - 1.96 * RESIDUAL_SD)
    assert found["high"] == pytest.approx(0.4 + 1.96 * RESIDUAL_SD)
    assert (found["start"], found["drops"]) == (1, [[10, 4], [4, 10]])
    np.testing.assert_allclose(found["matrix"], [[1, 0.4], [0.4, 1]])


def test_prompts_that_differ_widen_the_interval() -> None:
    scatter = np.where(np.arange(16) % 2, 1.0, -1.0) * np.array([[1.0], [-1.0]])  # within each half alike
    found = reading(drops(even(10, 4) + scatter), [0, 1], bootstrap=500, rng=rng())
    assert found["high"] - found["low"] > 1.5 * 2 * 1.96 * RESIDUAL_SD


def test_directions_that_differ_widen_the_interval_though_prompts_do_not() -> None:
    stray = np.where(HALVES == 0, 2.0, -2.0) * np.array([[1.0], [0.0]])  # a's direction of one half does more
    found = reading(drops(even(10, 4) + np.where(ROWS == 1, stray, 0)), [0, 1], bootstrap=500, rng=rng())
    # z = +-(2 / 2) / 10 off the mean, 0.2 apart: sd 0.1, less what all knock-outs of b's prompts share (2 of 14).
    assert (found["high"] - found["low"]) / 2 == pytest.approx(1.96 * 0.1, rel=0.5)


@pytest.mark.parametrize("values", [even(-1, 2), even(0, 0), even(np.nan, 1)])
def test_without_an_own_drop_there_is_no_index_and_valid_json(values: np.ndarray) -> None:
    found = reading(drops(values), [0, 1], bootstrap=50, rng=rng())
    assert (found["index"], found["low"], found["high"]) == (None, None, None)
    json.dumps(found, allow_nan=False)


def test_an_own_drop_that_may_be_zero_has_an_index_but_no_interval() -> None:
    found = reading(drops(even(0.1, 0) + np.where(np.arange(16) % 2, 5, -5)), [0, 1], bootstrap=500, rng=rng())
    assert found["index"] is not None
    assert (found["low"], found["high"]) == (None, None)


def test_one_voting_category_has_no_index() -> None:
    assert reading(drops(even(10, 4)), [1], bootstrap=50, rng=rng())["index"] is None


def test_the_direct_reading_shows_every_starting_block_that_was_measured() -> None:
    direct = measure_direct(two_mechanisms(), [0, 1], seed=0)
    found = direct_reading(direct, [0, 1], 12.0, bootstrap=50, rng=rng())
    assert (found["start"], found["index"]) == (1, pytest.approx(0, abs=1e-6))
    assert [step["start"] for step in found["by_start"]] == [0, 1]
    assert [step["own_drop"] for step in found["by_start"]] == pytest.approx([9, 6])
    assert [step["explained_share"] for step in found["by_start"]] == pytest.approx([0.75, 0.5])
    assert [step["drops"][0][0] for step in found["by_start"]] == pytest.approx([9, 6])


# Features of mlp_1: its first component, its second, and one that is never on.
ROWS_OF_DICTIONARY = np.array([[1.0, 0], [0, 1], [1, 1]], np.float32)


def features(site: Site) -> np.ndarray:
    assert site == MLP_1, "asked for a site that does not count"
    return np.pad(two_mechanisms().contrast.writes[:, 1, 1], ((0, 0), (0, 1)))


def test_the_circuit_reading_knocks_out_what_its_nodes_write() -> None:
    own = {"a": circuit("a", node(0), node(ERROR)), "b": circuit("b", node(1))}
    dictionaries = {MLP_1: ROWS_OF_DICTIONARY, Site("mlp", 0): ROWS_OF_DICTIONARY}  # mlp_0 is before the start
    found = circuit_drops(two_mechanisms(), own, features, dictionaries, 1)
    assert found is not None
    np.testing.assert_allclose(found.matrix(), [[6, 0], [0, 6]], atol=1e-4)


def test_a_category_without_a_circuit_knocks_out_nothing() -> None:
    found = circuit_drops(two_mechanisms(), {"a": circuit("a", node(0))}, features, {MLP_1: ROWS_OF_DICTIONARY}, 1)
    assert found is not None
    np.testing.assert_allclose(found.matrix(), [[6, 0], [0, 0]], atol=1e-4)


@pytest.mark.parametrize("nodes", [[], [node(2)], [node(ERROR)]])
def test_no_circuit_reading_where_circuits_write_nothing(nodes: list[Node]) -> None:
    circuits = {"a": circuit("a", *nodes)}
    assert circuit_drops(two_mechanisms(), circuits, features, {MLP_1: ROWS_OF_DICTIONARY}, 1) is None
    assert circuit_drops(two_mechanisms(), circuits, features, {}, 1) is None


def test_json_has_no_nan() -> None:
    assert number(float("nan")) is number(float("inf")) is None
    assert numbers(np.array([[1.0, np.nan]])) == [[1.0, None]]
