from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal.report.matrices import Matrix, cell_text, cluster_order, read_matrix, short, study_order

MATRIX = Matrix(("a", "b", "c"), ((1.0, 0.2, None), (0.4, 1.0, 0.6), (0.8, None, 0.5)), (0.9, None, 0.7))


def test_reordering_moves_rows_columns_and_ceiling_together():
    moved = MATRIX.ordered(["c", "a", "b"])
    assert moved.labels == ("c", "a", "b")
    assert moved.values == ((0.5, 0.8, None), (None, 1.0, 0.2), (0.6, 0.4, 1.0))
    assert moved.ceiling == (0.7, 0.9, None)


def test_names_that_the_matrix_lacks_are_passed_over():
    assert MATRIX.ordered(["x", "b", "a"]).values == ((1.0, 0.4), (0.2, 1.0))


def test_means_leave_undefined_values_out():
    assert MATRIX.mean_off_diagonal() == pytest.approx((0.2 + 0.4 + 0.6 + 0.8) / 4)
    assert MATRIX.mean_diagonal() == pytest.approx((1.0 + 1.0 + 0.5) / 3)
    assert Matrix(("a",), ((1.0,),)).mean_off_diagonal() is None
    assert MATRIX.defined()
    assert not Matrix(("a", "b"), ((None, None), (None, None))).defined()


def test_clustering_puts_alike_categories_side_by_side():
    # a and c are alike, b and d are alike
    rows = [[1, 0.1, 0.9, 0.1], [0.1, 1, 0.1, 0.8], [0.9, 0.1, 1, 0.1], [0.1, 0.8, 0.1, 1]]
    order = cluster_order(Matrix(tuple("abcd"), tuple(tuple(map(float, row)) for row in rows)))
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset("ac"), frozenset("bd")}


@given(st.integers(1, 7), st.integers(0, 1000))
def test_clustering_is_a_permutation_whatever_is_undefined(n: int, seed: int):
    rng = np.random.default_rng(seed)
    values = rng.uniform(-1, 2, (n, n))
    rows = tuple(tuple(None if rng.random() < 0.5 else float(v) for v in row) for row in values)
    labels = tuple(str(i) for i in range(n))
    assert sorted(cluster_order(Matrix(labels, rows))) == sorted(labels)


def test_a_matrix_over_the_voting_categories_takes_their_names():
    comparison = {"categories": ["a", "b", "c"], "voting": ["a", "c"]}
    matrix = read_matrix({"matrix": [[1, 0.5], [0.5, 1]]}, comparison)
    assert matrix is not None
    assert matrix.labels == ("a", "c")
    assert read_matrix(None, comparison) is None


def test_every_category_has_a_place_in_the_order_of_the_study():
    comparison = {
        "categories": ["a", "b", "c"],
        "voting": ["a", "c"],
        "transfer": {"direct": {"matrix": [[1, 0], [0, 1]]}},
    }
    assert sorted(study_order(comparison)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.984, "0.98"), (-0.001, "0.00"), (-0.21, "-0.21"), (1.34, "1.34")]
)
def test_cell_text(value: float | None, text: str):
    assert cell_text(value) == text


def test_long_names_are_cut_to_one_line():
    assert short("a\nb") == "a b"
    assert len(short("x" * 50)) == 18
    assert short("x" * 50).endswith("…")
