"""The geometric median, where it is known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from refusal.sae.geometric_median import geometric_median


def test_of_a_triangle_it_is_the_point_that_sees_all_sides_at_120_degrees():
    # Fermat's point of (-1, 0), (1, 0), (0, 3): on the axis, at 1 / sqrt(3), where the base is seen at 120 degrees
    x = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    assert geometric_median(x).tolist() == pytest.approx([0.0, 3**-0.5], abs=1e-3)


def test_on_a_line_it_is_the_median():
    x = torch.tensor([[0.0], [1.0], [2.0], [50.0], [1000.0]])
    assert geometric_median(x).tolist() == pytest.approx([2.0], abs=0.05)


def test_rows_that_are_all_alike():
    assert geometric_median(torch.full((5, 3), 2.5)).tolist() == [2.5, 2.5, 2.5]


@settings(max_examples=25)
@given(n=st.integers(20, 60), d=st.integers(2, 8), seed=st.integers(0, 999))
def test_the_unit_vectors_to_the_rows_cancel(n: int, d: int, seed: int):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * torch.arange(1.0, d + 1)
    directions = x - geometric_median(x)
    distance = directions.norm(dim=1)
    is_hit = distance < 0.01 * distance.mean()  # a row at the median itself holds against a pull of 1
    pull = torch.nn.functional.normalize(directions[~is_hit], dim=1).sum(0)
    assert float(pull.norm()) < int(is_hit.sum()) + 0.01 * n
