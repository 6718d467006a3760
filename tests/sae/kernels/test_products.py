"""The heavy sums, worked by hand, and the choice of the largest entries."""

from __future__ import annotations

import pytest
import torch

from refusal.sae.kernels.pairs import Pairs
from refusal.sae.kernels.products import encode, encode_largest, gradients, largest, reconstruct, sum_by_row

# row 0 has the features 2 and 0, row 1 none, row 2 has 2 and 1; of four features, 3 is active nowhere
PAIRS = Pairs.of_rows(torch.tensor([0, 0, 2, 2]), torch.tensor([2, 0, 2, 1]), 3, 4)
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["compiled", "torch"])
def test_pre_codes_and_their_largest_are_those_found_one_after_the_other(dtype: torch.dtype):
    rng = torch.Generator().manual_seed(0)
    centred, W_rows, b_enc = (torch.randn(shape, generator=rng, dtype=dtype) for shape in ((9, 5), (40, 5), (40,)))
    pre, columns = encode_largest(centred, W_rows, b_enc, 3)
    torch.testing.assert_close(pre, encode(centred, W_rows, b_enc))
    assert torch.equal(columns.sort(1).values, largest(pre, 3).sort(1).values)


def test_each_row_is_the_sum_of_its_features():
    # row 0: 1 * (1, 1) + 2 * (1, 0); row 2: 3 * (1, 1) + 4 * (0, 1)
    assert sum_by_row(VALUES, TABLE, PAIRS).tolist() == [[3.0, 1.0], [0.0, 0.0], [3.0, 7.0]]


def test_codes_and_what_they_leave_of_the_rows():
    pre = torch.tensor([[2.0, 7.0, -1.0, 7.0], [7.0, 7.0, 7.0, 7.0], [7.0, 4.0, 3.0, 7.0]])
    values, errors, squares = reconstruct(pre, ROWS, TABLE, PAIRS, torch.tensor([4]))
    assert values.tolist() == [0.0, 2.0, 3.0, 4.0]
    # row 0: (1, 10) - 2 * (1, 0); row 2: (2, 20) - 3 * (1, 1) - 4 * (0, 1)
    assert errors.tolist() == [[[-1.0, 10.0], [5.0, 50.0], [-1.0, 13.0]]]
    assert float(squares) == 101 + 2525 + 170


def test_each_prefix_leaves_what_its_own_features_do_not_reconstruct():
    pairs = Pairs.of_rows(torch.tensor([0, 0, 2, 2]), torch.tensor([0, 2, 1, 2]), 3, 4)
    pre = torch.tensor([[2.0, 7.0, 1.0, 7.0], [7.0, 7.0, 7.0, 7.0], [7.0, 4.0, 3.0, 7.0]])
    _, errors, squares = reconstruct(pre, ROWS, TABLE, pairs, torch.tensor([1, 2, 4]))
    assert errors[0].tolist() == [[-1.0, 10.0], [5.0, 50.0], [2.0, 20.0]]  # feature 0 alone
    assert errors[1].tolist() == [[-1.0, 10.0], [5.0, 50.0], [2.0, 16.0]]  # and 1
    assert errors[2].tolist() == [[-2.0, 9.0], [5.0, 50.0], [-1.0, 13.0]]  # and 2
    assert float(squares) == (101 + 2525 + 404) + (101 + 2525 + 260) + (85 + 2525 + 170)


def test_gradients_of_the_weights():
    centred = torch.tensor([[1.0, 2.0], [9.0, 9.0], [3.0, 0.0]])
    W_rows, ends = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [5.0, 5.0]]), torch.tensor([4])
    d_W_enc, d_b_enc, d_W_dec, d_b_dec = gradients(ROWS[None], 2.0, VALUES, centred, W_rows, TABLE, PAIRS, ends)
    # feature 0: 2 * 2 * (1, 10); 1: 2 * 4 * (2, 20); 2: 2 * 1 * (1, 10) + 2 * 3 * (2, 20)
    assert d_W_dec.tolist() == [[4.0, 40.0], [16.0, 160.0], [14.0, 140.0], [0.0, 0.0]]
    # df is 2 * (1, 10) . (1, 1) = 22, 2 * (1, 10) . (1, 0) = 2, 2 * (2, 20) . (1, 1) = 44, 2 * (2, 20) . (0, 1) = 40
    assert d_b_enc.tolist() == [2.0, 40.0, 66.0, 0.0]
    assert d_b_dec.tolist() == [2.0 * (1 + 5 + 2) - 2.0, 2.0 * (10 + 50 + 20) - 40.0]
    assert d_W_enc.tolist() == [[2.0, 4.0], [120.0, 0.0], [22.0 + 132.0, 44.0], [0.0, 0.0]]
