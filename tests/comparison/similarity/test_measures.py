"""The contract that every measure in the folder keeps, found as the package finds them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from refusal.comparison.similarity import Measure, matrix, measures, nodes

N_FEATURES, D_MODEL = 6, 4
DIRECTIONS = np.random.default_rng(0).normal(size=(N_FEATURES, D_MODEL))
importances = arrays(float, N_FEATURES, elements=st.sampled_from([-2.0, -1.0, -0.25, 0.0, 0.0, 0.5, 1.0, 3.0]))
every_measure = pytest.mark.parametrize("measure", measures().values(), ids=measures().keys())


def test_all_files_of_the_folder_are_found():
    assert list(measures()) == ["cosine", "net_direction", "node_jaccard", "subspace", "weighted_jaccard"]


@every_measure
@given(a=importances, b=importances, scale=st.sampled_from([1e-200, 0.1, 7.0]))
@settings(max_examples=60)
def test_symmetric_bounded_scale_free_and_the_same_for_any_order(
    measure: Measure, a: np.ndarray, b: np.ndarray, scale: float
):
    value = measure(a, b, directions=DIRECTIONS)
    if not (a.any() and b.any()):
        assert value is None
        return
    assert value is not None
    assert -1 <= value <= 1
    assert measure(b, a, directions=DIRECTIONS) == pytest.approx(value, abs=1e-9)
    assert measure(a, scale * b, directions=DIRECTIONS) == pytest.approx(value, abs=1e-9)
    assert measure(a, a, directions=DIRECTIONS) == pytest.approx(1)
    order = np.random.default_rng(1).permutation(N_FEATURES)
    assert measure(a[order], b[order], directions=DIRECTIONS[order]) == pytest.approx(value, abs=1e-9)


@every_measure
def test_disjoint_circuits_share_nothing(measure: Measure):
    a, b = np.array([1.0, 2, 0, 0]), np.array([0.0, 0, 3, 1])
    assert measure(a, b, directions=np.eye(4)) == pytest.approx(0, abs=1e-12)


@every_measure
def test_matrix_is_symmetric_with_ones_and_none(measure: Measure):
    vectors = np.array([[1.0, 2, 0, -1], [0, 0, 0, 0], [1, 1, 0, 1]])
    found = matrix(vectors, measure, directions=np.eye(4))
    assert found[0][0] == found[2][2] == 1.0
    assert found[1] == [None] * 3
    assert [row[1] for row in found] == [None] * 3
    assert found[0][2] == found[2][0] == measure(vectors[0], vectors[2], directions=np.eye(4))


def test_without_directions_geometry_is_undefined():
    vectors = np.ones((2, 3))
    assert matrix(vectors, measures()["subspace"]) == [[None, None], [None, None]]
    assert matrix(vectors, measures()["net_direction"]) == [[None, None], [None, None]]


def test_nodes_have_a_tenth_of_the_strongest():
    assert nodes(np.array([-10.0, 1, 0.99, -1, 0]), 0.1).tolist() == [True, True, False, True, False]
    assert not nodes(np.zeros(3), 0.1).any()
    assert nodes(np.array([1.0, 0]), 0.0).tolist() == [True, False]
