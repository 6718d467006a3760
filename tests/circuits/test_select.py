from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from refusal.circuits.circuit import ERROR
from refusal.circuits.select import choose_nodes, ranks, scaled, scales
from refusal.models.sites import parse_site

MLP, RESIDUAL = parse_site("mlp_0"), parse_site("residuals_0")
# Last entries are errors: 8 at the MLP, larger than any feature.
MEANS = {MLP: np.array([4.0, -2.0, 0.3, 8.0]), RESIDUAL: np.array([0.0, 0.0, 1.0, 0.05])}


def test_the_error_is_left_out_of_the_scale() -> None:
    assert scales(MEANS) == {MLP: 4.0, RESIDUAL: 1.0}
    np.testing.assert_allclose(scaled(MEANS)[MLP], [1, -0.5, 0.075, 2])


def test_nodes_reach_the_threshold_strongest_first() -> None:
    chosen = [(node.site, node.feature, node.importance, node.scaled) for node in choose_nodes(MEANS, threshold=0.1)]
    assert chosen == [
        ("mlp_0", ERROR, 8.0, 2.0),
        ("mlp_0", 0, 4.0, 1.0),
        ("mlp_0", 1, -2.0, -0.5),  # a feature against refusing counts by its size
        ("residuals_0", 2, 1.0, 1.0),
    ]


def test_a_site_has_at_most_top_n_nodes() -> None:
    assert [node.id for node in choose_nodes(MEANS, threshold=0.1, top_n_per_layer=1)] == ["mlp_0/-1", "residuals_0/2"]


def test_rounding_is_not_scaled_into_nodes() -> None:
    assert choose_nodes({MLP: np.array([1e-9, -1e-9, 1e-9])}, threshold=0.1) == []


def test_ranks_go_over_all_sites() -> None:
    # Scaled sizes: MLP 1, 0.5, 0.075, error 2; residual 0, 0, 1, error 0.05. Six of the eight have any.
    rank = ranks(MEANS)
    np.testing.assert_array_equal(rank[MLP], [1, 3, 4, 0])
    np.testing.assert_array_equal(rank[RESIDUAL], [6, 6, 2, 5])


@given(
    hnp.arrays(np.float64, (2, 9), elements=st.floats(-5, 5, allow_subnormal=False)),
    st.floats(0.01, 1),
    st.floats(0.01, 1),
)
def test_a_higher_threshold_keeps_a_part_of_the_nodes(values: np.ndarray, a: float, b: float) -> None:
    means = {MLP: values[0], RESIDUAL: values[1]}
    low, high = (choose_nodes(means, threshold=threshold) for threshold in sorted((a, b)))
    assert {node.id for node in high} <= {node.id for node in low}
    # The nodes of a threshold are those of the lowest ranks.
    rank = ranks(means)
    numbers = [rank[MLP if node.site == "mlp_0" else RESIDUAL][node.feature] for node in high]
    assert sorted(numbers) == list(range(len(high)))
