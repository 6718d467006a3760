"""The direction of what has been written since a block: it adds up, cancels the topic, leaves out what came before."""

from __future__ import annotations

import numpy as np

from refusal.comparison.crossfit import halves, quarters
from refusal.comparison.directions import accumulated, unit, written_directions
from tests.comparison.hand import CATEGORY, HALF, REFUSED, contrast, two_mechanisms


def test_directions_have_unit_length_or_none() -> None:
    np.testing.assert_allclose(unit(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0, 0]])


def test_differences_add_up_from_the_start_on() -> None:
    written = np.array([[[1, 0], [0, 1]], [[0, 0], [3, -1]]])  # attention_0, mlp_0, attention_1, mlp_1
    root = np.sqrt(0.5)
    np.testing.assert_allclose(accumulated(written.astype(float), 0), [[[1, 0], [root, root]], [[root, root], [1, 0]]])
    np.testing.assert_allclose(accumulated(written.astype(float), 1)[1, 1], [np.sqrt(0.9), -np.sqrt(0.1)])
    assert not accumulated(written.astype(float), 1)[0].any()


def test_directions_cancel_the_topic() -> None:
    directions = written_directions(two_mechanisms().fit, 0, 2)
    assert directions.shape == (4, 2, 2, 2, 2)
    assert not directions[:, :, 0, 0].any()  # the first attention writes nothing
    for layer, component in ((0, 1), (1, 0), (1, 1)):  # from the first MLP on: category a, then b, which has a topic
        found = directions[:, :, layer, component]
        np.testing.assert_allclose(found, np.broadcast_to(np.eye(2), (4, 2, 2)), atol=1e-6)


def test_only_the_blocks_from_start_to_before_stop_have_directions() -> None:
    fit = two_mechanisms().fit
    assert written_directions(fit, 1, 2).any((0, 1, 3, 4)).tolist() == [False, True]
    assert written_directions(fit, 0, 1).any((0, 1, 3, 4)).tolist() == [True, False]


def test_what_was_written_before_the_start_is_left_out() -> None:
    # Block 0 writes the first component when the model refuses, block 1 the second.
    writes = np.zeros((16, 2, 2, 2))
    refused = np.array(REFUSED, dtype=bool)
    writes[refused, 0, 1, 0], writes[refused, 1, 1, 1] = 3, 4
    fit = halves(contrast(CATEGORY, REFUSED, HALF, writes=writes))
    np.testing.assert_allclose(written_directions(fit, 0, 2)[:, :, 1, 1], np.broadcast_to([0.6, 0.8], (2, 2, 2)))
    np.testing.assert_allclose(written_directions(fit, 1, 2)[:, :, 1, 1], np.broadcast_to([0, 1], (2, 2, 2)))


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
    assert written_directions(fit, 0, 1)[:, :, 0, 1, 63].min() > 0.7
