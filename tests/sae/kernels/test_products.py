"""The heavy sums, worked by hand, and the choice of the largest entries."""

from __future__ import annotations

import pytest
import torch

from refusal.sae.kernels.pairs import Pairs
from refusal.sae.kernels.products import decode_gradients, gather_gradients, largest, sum_by_row

# row 0 has the features 2 and 0, row 1 none, row 2 has 2 and 1; of four features, 3 is active nowhere
PAIRS = Pairs(torch.tensor([0, 0, 2, 2]), torch.tensor([2, 0, 2, 1]), 3, 4)
VALUES = torch.tensor([1.0, 2.0, 3.0, 4.0])
TABLE = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [9.0, 9.0]])  # one row a feature
ROWS = torch.tensor([[1.0, 10.0], [5.0, 50.0], [2.0, 20.0]])  # one row a row


@pytest.mark.parametrize(("n", "k"), [(40, 40), (512, 8), (512, 4), (512, 1), (4096, 3), (4100, 3)])
def test_the_largest_are_those_of_a_full_sort(n: int, k: int):
    # 512 columns and k = 4 are the first that go through blocks (128 k); 4100 are no multiple of 16
    x = torch.randn(50, n, generator=torch.Generator().manual_seed(0))
    expected = x.sort(dim=1, descending=True).indices[:, :k]
    torch.testing.assert_close(largest(x, k).sort(dim=1).values, expected.sort(dim=1).values)


def test_the_largest_may_share_a_block():
    # columns 5, 5 + 32 and 5 + 64 of 512 lie in one block of 16 (n_blocks = 32)
    x = torch.zeros(1, 512)
    x[0, [5, 37, 69, 200]] = torch.tensor([4.0, 3.0, 2.0, 1.0])
    assert sorted(largest(x, 3)[0].tolist()) == [5, 37, 69]
    assert sorted(largest(x, 4)[0].tolist()) == [5, 37, 69, 200]


def test_each_row_is_the_sum_of_its_features():
    # row 0: 1 * (1, 1) + 2 * (1, 0); row 2: 3 * (1, 1) + 4 * (0, 1)
    assert sum_by_row(VALUES, TABLE, PAIRS).tolist() == [[3.0, 1.0], [0.0, 0.0], [3.0, 7.0]]


def test_gradients_of_the_decoder():
    d_values, d_table = decode_gradients(ROWS, VALUES, TABLE, PAIRS)
    # (1, 10) . (1, 1), (1, 10) . (1, 0), (2, 20) . (1, 1), (2, 20) . (0, 1)
    assert d_values.tolist() == [11.0, 1.0, 22.0, 20.0]
    # feature 0: 2 * (1, 10); 1: 4 * (2, 20); 2: 1 * (1, 10) + 3 * (2, 20)
    assert d_table.tolist() == [[2.0, 20.0], [8.0, 80.0], [7.0, 70.0], [0.0, 0.0]]


def test_gradients_of_the_encoder():
    d_rows, d_b_enc, d_b_dec = gather_gradients(VALUES, ROWS, TABLE, PAIRS)
    assert d_rows.tolist() == [[2.0, 20.0], [8.0, 80.0], [7.0, 70.0], [0.0, 0.0]]
    assert d_b_enc.tolist() == [2.0, 4.0, 4.0, 0.0]
    # -(2 * (1, 0) + 4 * (0, 1) + 4 * (1, 1))
    assert d_b_dec.tolist() == [-6.0, -8.0]
