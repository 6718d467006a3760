"""Directions of each write by itself, and of all that has been written since a block; both cancel the topic."""

from __future__ import annotations

import numpy as np
import pytest

from refusal.comparison.crossfit import halves, quarters
from refusal.comparison.directions import unit, window_directions, write_directions
from tests.comparison.hand import CATEGORY, HALF, REFUSED, contrast, two_mechanisms


def test_directions_have_unit_length_or_none() -> None:
    np.testing.assert_allclose(unit(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0, 0]])


def test_directions_cancel_the_topic() -> None:
    by_category = np.broadcast_to(np.eye(2), (4, 2, 2))  # a by the first component, b, which has a topic, by the second
    each, window = write_directions(two_mechanisms().fit, 2), window_directions(two_mechanisms().fit, 0, 2)
    assert each.shape == window.shape == (4, 2, 2, 2, 2)
    for layer, attention in ((0, 0), (1, by_category)):  # attention writes nothing; since block 0 the MLP has
        np.testing.assert_allclose(each[:, :, layer, 0], 0)
        np.testing.assert_allclose(window[:, :, layer, 0], np.broadcast_to(attention, (4, 2, 2)), atol=1e-6)
        np.testing.assert_allclose(each[:, :, layer, 1], by_category, atol=1e-6)
        np.testing.assert_allclose(window[:, :, layer, 1], by_category, atol=1e-6)


def test_only_the_blocks_from_start_to_before_stop_have_directions() -> None:
    fit = two_mechanisms().fit
    assert window_directions(fit, 1, 2).any((0, 1, 3, 4)).tolist() == [False, True]
    assert window_directions(fit, 0, 1).any((0, 1, 3, 4)).tolist() == [True, False]
    assert write_directions(fit, 1).any((0, 1, 3, 4)).tolist() == [True, False]


def test_a_window_adds_up_and_leaves_out_what_was_written_before() -> None:
    # Block 0 writes the first component when the model refuses, block 1 the second.
    writes = np.zeros((16, 2, 2, 2))
    refused = np.array(REFUSED, dtype=bool)
    writes[refused, 0, 1, 0], writes[refused, 1, 1, 1] = 3, 4
    fit = halves(contrast(CATEGORY, REFUSED, HALF, writes=writes))

    def at_mlp_1(directions: np.ndarray) -> list[float]:
        return directions[0, 0, 1, 1].tolist()

    assert at_mlp_1(window_directions(fit, 0, 2)) == pytest.approx([0.6, 0.8])
    assert at_mlp_1(window_directions(fit, 1, 2)) == at_mlp_1(write_directions(fit, 2)) == [0, 1]


def test_noise_along_few_dimensions_does_not_turn_a_direction() -> None:
    # All refusals are written along one direction of 64; 4 others vary by ten times its length from prompt to prompt.
    rng = np.random.default_rng(0)
    category, refused, half = (np.tile(flags, 6) for flags in (CATEGORY, REFUSED, HALF))
    writes = 0.05 * rng.standard_normal((96, 2, 2, 64))
    writes[:, 0, 1, :4] += 10 * rng.standard_normal((96, 4))
    writes[refused == 1, 0, 1, 63] += 1
    fit = quarters(contrast(category, refused, half, writes=writes))
    plain = unit(fit.difference(fit.contrast.writes))[:, :, 0, 1, 63]
    assert plain.max() < 0.5
    assert write_directions(fit, 1)[:, :, 0, 1, 63].min() > 0.7
