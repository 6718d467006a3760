"""The compiled loops against torch's own operations, which float64 goes through; threads, memory, NaN."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from refusal.sae.kernels import cpu, products
from refusal.sae.kernels.pairs import Pairs, offsets


@pytest.fixture
def threads() -> Iterator[None]:
    """Put the number of threads back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def random_pairs(seed: int, n_rows: int, n_features: int, share: float) -> Pairs:
    active = torch.rand(n_rows, n_features, generator=torch.Generator().manual_seed(seed)) < share
    rows, features = active.nonzero(as_tuple=True)
    return Pairs.of_rows(rows, features, n_rows, n_features)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


shapes = st.tuples(st.integers(1, 12), st.integers(1, 20), st.integers(1, 9))


@given(shapes, st.floats(0, 1), st.integers(0, 1000), st.integers(1, 3))
def test_sums_are_those_of_torch(shape: tuple[int, int, int], share: float, seed: int, n_prefixes: int) -> None:
    n_rows, n_features, width = shape
    pairs = random_pairs(seed, n_rows, n_features, share)
    ends = torch.tensor(sorted({-(-n_features * (i + 1) // n_prefixes) for i in range(n_prefixes)}))
    pre, centred, W = normal(seed, n_rows, n_features), normal(seed + 1, n_rows, width), normal(seed, n_features, width)
    grads = normal(seed + 2, len(ends), n_rows, width)
    results = []
    for to in (Tensor.float, Tensor.double):
        values, errors, squares = products.reconstruct(to(pre), to(centred), to(W), pairs, ends)
        weights = products.gradients(to(grads), 0.5, values, to(centred), to(W + 1), to(W), pairs, ends)
        shifted = products.centre(to(centred), torch.tensor(3.0), to(W[0]))
        encoded = products.encode(to(centred), to(W), to(pre[0]))
        results.append((shifted, encoded, values, errors, squares, *weights))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@given(shapes, st.floats(0, 1), st.integers(0, 1000))
def test_pairs_are_sorted_as_torch_sorts_them(shape: tuple[int, int, int], share: float, seed: int) -> None:
    pairs = random_pairs(seed, *shape[:2], share)
    order, rows, starts = pairs.by_feature
    expected = pairs.features.sort(stable=True).indices
    assert torch.equal(order, expected)
    assert torch.equal(rows, pairs.rows[expected])
    assert torch.equal(starts, offsets(pairs.features, pairs.n_features))


@given(st.integers(1, 5), st.integers(1, 300), st.data())
def test_the_largest_are_torchs_also_among_ties(n_rows: int, n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    x = normal(data.draw(st.integers(0, 1000)), n_rows, n).mul(data.draw(st.sampled_from([1, 1000]))).round()
    columns = products.largest(x, k)
    assert all(len(set(row)) == k for row in columns.tolist())
    assert torch.equal(x.gather(1, columns).sort(1).values, x.topk(k, dim=1).values.sort(1).values)


def test_numbers_that_are_none_give_columns_that_exist() -> None:
    x = torch.full((3, 100), torch.nan)
    x[1, 50:] = 1.0
    columns = products.largest(x, 7)
    assert ((columns >= 0) & (columns < 100)).all()


@pytest.mark.usefixtures("threads")
def test_the_number_of_threads_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "WAKING", 0)
    pairs = random_pairs(0, 40, 90, 0.1)
    values, grad, W = normal(0, len(pairs)), normal(1, 40, 33), normal(2, 90, 33)
    pre, ends = normal(3, 40, 90), torch.tensor([90])
    found = []
    for n in (1, 2, 3, 7):
        torch.set_num_threads(n)
        found.append(
            [
                products.largest(W, 5),
                *products.reconstruct(pre, grad, W, pairs, ends),
                *products.gradients(grad[None], 1.0, values, grad, W + 1, W, pairs, ends),
                products.centre(grad, pre[0, 0], W[0]),
            ]
        )
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


@pytest.mark.usefixtures("threads")
def test_a_forked_process_has_threads_of_its_own() -> None:
    torch.set_num_threads(2)
    x = normal(0, 50, 100)
    expected = products.largest(x, 3)
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(products.largest(x, 3), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_memory_is_used_again_once_its_tensor_is_gone_and_not_before() -> None:
    shape = (1 << 10, (1 << 8) + 1)
    first = cpu.empty(*shape)
    second = cpu.empty(*shape)
    places = {first.data_ptr(), second.data_ptr()}
    assert len(places) == 2
    view = first[3:]
    del first
    assert cpu.empty(*shape).data_ptr() not in {view.data_ptr(), second.data_ptr(), view.data_ptr() - 3 * 4 * shape[1]}
    del view, second
    assert {cpu.empty(*shape).data_ptr() for _ in range(3)} <= places
    cpu.release()
    assert not cpu._memory


@pytest.mark.parametrize("width", [256, 257, 300, 1001])
def test_memory_stands_where_torch_would_put_it(width: int) -> None:
    assert all(cpu.empty(1024, width).data_ptr() % 64 == 0 for _ in range(3))
    cpu.release()


def test_a_gradient_that_autograd_keeps_is_not_overwritten() -> None:
    weight = torch.nn.Parameter(torch.zeros(1 << 10, 1 << 8))
    kept = []
    for value in (1.0, 2.0, 3.0):
        (weight * 0).sum().backward()
        weight.grad = cpu.empty(*weight.shape).fill_(value)
        kept.append(weight.grad)
        weight.grad = None
    assert [float(grad[0, 0]) for grad in kept] == [1.0, 2.0, 3.0]
    cpu.release()
