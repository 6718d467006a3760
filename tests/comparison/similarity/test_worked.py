"""Each measure on numbers that can be worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from refusal.comparison.similarity import cosine, net_direction, node_jaccard, subspace, weighted_jaccard


def test_cosine():
    # (3*4 + 4*3) / (5 * 5)
    assert cosine.similarity(np.array([3.0, 4]), np.array([4.0, 3])) == pytest.approx(24 / 25)
    assert cosine.similarity(np.array([3.0, 4]), np.array([-3.0, -4])) == pytest.approx(-1)


def test_weighted_jaccard():
    # shares 3/4, 1/4 and 1/4, 3/4: (1/4 + 1/4) / (3/4 + 3/4)
    assert weighted_jaccard.similarity(np.array([3.0, 1]), np.array([2.0, 6])) == pytest.approx(1 / 3)
    # the second feature has opposite signs: (1/4) / (3/4 + 1/4 + 3/4)
    assert weighted_jaccard.similarity(np.array([3.0, 1]), np.array([2.0, -6])) == pytest.approx(1 / 7)


def test_node_jaccard():
    # nodes {0, 1} and {0, 2} at a tenth, {0, 1} and {0} at a half; a sign makes no other node
    a, b = np.array([-10.0, 9, 0.5]), np.array([10.0, 0.5, 4])
    assert node_jaccard.similarity(a, b) == pytest.approx(1 / 3)
    assert node_jaccard.similarity(a, b, threshold=0.5) == pytest.approx(1 / 2)


def test_net_direction():
    # nets (1, 1) and (2, 0): cos 45 degrees
    directions = np.array([[1.0, 0], [0, 1], [2, 0]])
    found = net_direction.similarity(np.array([1.0, 1, 0]), np.array([0.0, 0, 1]), directions=directions)
    assert found == pytest.approx(np.sqrt(0.5))
    # importances that cancel have no net direction
    assert net_direction.similarity(np.array([2.0, 0, -1]), np.ones(3), directions=directions) is None


def test_subspace_angles():
    # a line at 60 degrees to another: cos^2 = 1/4
    directions = np.array([[1.0, 0, 0], [0.5, np.sqrt(0.75), 0], [0, 1, 0], [0, 0, 1]])
    e0, e1, plane = np.array([1.0, 0, 0, 0]), np.array([0.0, 1, 0, 0]), np.array([1.0, 0, 1, 0])
    assert subspace.similarity(e0, e1, directions=directions) == pytest.approx(1 / 4)
    # a line within a plane: 1 of 2 dimensions; the plane against itself described by other features: all
    assert subspace.similarity(e0, plane, directions=directions) == pytest.approx(1 / 2)
    assert subspace.similarity(np.array([1.0, 1, 0, 0]), plane, directions=directions) == pytest.approx(1)


def test_subspace_survives_a_split_feature():
    rng = np.random.default_rng(0)
    whole, noise = np.eye(8)[:2], 0.01 * rng.normal(size=(2, 8))
    directions = np.concatenate([whole, whole[:1] + noise])  # features 2 and 3 are feature 0, split
    a, b = np.array([1.0, 1, 0, 0]), np.array([0, 1.0, 0.5, 0.5])
    assert subspace.similarity(a, b, directions=directions) == pytest.approx(1, abs=1e-3)
    assert node_jaccard.similarity(a, b) == pytest.approx(1 / 4)
