"""The error of the directions shows in how the two halves disagree, and a bootstrap over prompts misses it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal.comparison.direction_noise import direction_sd
from refusal.comparison.directions import write_directions
from refusal.comparison.transfer import index_of, measure_drops
from refusal.models.planted_plan import Plan
from refusal.prompts.prompt import CATEGORIES
from tests.comparison.planted_study import plant

DROPS = np.array([[10.0, 4.0, 5.0], [6.0, 8.0, 4.0], [5.0, 5.0, 12.0]])


def test_halves_that_agree_have_no_direction_error() -> None:
    assert direction_sd(np.stack([DROPS, DROPS])) == pytest.approx(0, abs=1e-9)


@given(st.lists(st.floats(-0.9, 5), min_size=3, max_size=3), st.floats(0, 1))
def test_prompts_that_fall_further_under_every_knock_out_are_no_direction_error(scale: list[float], t: float) -> None:
    drops = np.where(np.eye(3, dtype=bool), 10, 10 * t)
    assert direction_sd(np.stack([drops, drops * scale])) == pytest.approx(0, abs=1e-9)


def test_one_noisy_direction_by_hand() -> None:
    # Own drops 10, T = 0: only the six off-diagonal drops count. In half 0 the direction of a also takes 2 from b and 2
    # from c, in half 1 it adds as much: z = +-(2 + 2) / 6 / 10, and sd = |z0 - z1| / 2 = 4 / 60.
    own = np.diag([10.0] * 3)
    noise = np.array([[0, 2.0, 2.0], [0, 0, 0], [0, 0, 0]])
    assert direction_sd(np.stack([own + noise, own - noise])) == pytest.approx(4 / 60)


def test_undefined_without_an_own_drop_or_with_one_category() -> None:
    assert math.isnan(direction_sd(np.stack([-DROPS, -DROPS])))
    assert math.isnan(direction_sd(np.ones((2, 1, 1))))
    assert math.isnan(direction_sd(np.stack([DROPS, np.where(DROPS == 4, np.nan, DROPS)])))


@pytest.mark.parametrize("truth", [0.1, 0.5, 0.9])
def test_it_measures_the_scatter_of_the_index(truth: float) -> None:
    # Directions that miss by an angle of their own: cosines 0.7 - 1, and stray effects on each other category. Tested
    # prompts fall further or less, alike under every knock-out.
    rng = np.random.default_rng(0)
    n, draws = 8, 400
    ideal = np.where(np.eye(n, dtype=bool), 1, truth)
    index, sd = [], []
    for _ in range(draws):
        halves = ideal * rng.uniform(0.7, 1, (2, n, 1)) + 0.1 * rng.standard_normal((2, n, 1)) * (1 - np.eye(n))
        halves = halves * rng.uniform(0.5, 1.5, (2, 1, n))
        index.append(index_of(halves.mean(0), range(n)))
        sd.append(direction_sd(halves))
    assert np.sqrt(np.mean(np.square(sd))) == pytest.approx(np.std(index), rel=0.3)


@pytest.mark.slow
def test_on_few_prompts_it_is_most_of_what_moves_the_index() -> None:
    index, sd = [], []
    for draw in range(16):
        study = plant(Plan(modularity=1.0, n_layers=5), categories=CATEGORIES[:5], n=6, draw=draw)
        halves = study.knock_outs.by_halves()
        drops = measure_drops(halves, write_directions(halves.fit, 4), 2, 4)
        index.append(index_of(drops.matrix(), study.voting))
        sd.append(direction_sd(drops.by_part()[:, study.voting][:, :, study.voting]))
    assert np.sqrt(np.mean(np.square(sd))) == pytest.approx(np.std(index), rel=0.5)
