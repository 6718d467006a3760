"""The products of a training step on a CPU, for float32: ``loops`` in threads, into memory of the step before.

New memory costs more than the sums that fill it, as the system clears it page by page. So ``empty`` gives the memory of
tensors that are gone to new ones of the same shape, in huge pages where the system has them (NumPy asks for those).
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from refusal.sae.kernels import loops, top_k
from refusal.sae.kernels.pairs import Pairs

WORTH_KEEPING = 1 << 20  # bytes; smaller memory is kept by the C library itself
WAKING = 1 << 19  # numbers that are read while an idle core wakes for a part, and this one after it; measured

_memory: dict[tuple[int, ...], list[np.ndarray]] = {}


def empty(*shape: int) -> Tensor:
    """Return a float32 tensor of any content, in memory that no tensor uses any more."""
    if 4 * math.prod(shape) < WORTH_KEEPING:
        return torch.empty(shape)
    kept = _memory.setdefault(shape, [])
    for i in range(len(kept)):
        if _references(kept[i]) == UNUSED:
            return torch.from_numpy(kept[i])
    kept.append(_aligned(shape))
    return torch.from_numpy(kept[-1])


def _aligned(shape: Sequence[int]) -> np.ndarray:
    """Allocate float32 at a multiple of 64 bytes, as torch does: products of matrices round by where they stand."""
    size = math.prod(shape)
    memory = np.empty(size + 15, dtype=np.float32)
    start = -memory.ctypes.data // 4 % 16
    return memory[start : start + size].reshape(shape)


def _references(array: np.ndarray) -> int:
    return sys.getrefcount(array)


_held = [np.empty(0)]
UNUSED = _references(_held[0])  # of an array that only a list holds


def release() -> None:
    """Give back the memory that is kept, once a training is over; tensors keep what they use."""
    _memory.clear()


def largest(x: Tensor, k: int) -> Tensor:
    """Return the columns of the k largest entries of each row, [batch, k], in no order."""
    return _largest(x, torch.empty(0), k)


def _largest(x: Tensor, shift: Tensor, k: int) -> Tensor:
    columns = torch.empty(len(x), k, dtype=torch.int64)
    _run(top_k.largest, _parts(2 * x.numel(), len(x)), *_arrays((x, shift, columns)))
    return columns


def centre(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return scale * x - shift, [batch, d_model]."""
    centred = empty(*x.shape)
    _run(loops.centre, _parts(x.numel(), len(x)), *_arrays((x,)), float(scale), *_arrays((shift, centred)))
    return centred


def encode(centred: Tensor, W_rows: Tensor, b_enc: Tensor) -> Tensor:
    """Return all pre-codes, [batch, n_features]."""
    return torch.addmm(b_enc, centred, W_rows.T, out=empty(len(centred), len(W_rows)))


def encode_largest(centred: Tensor, W_rows: Tensor, b_enc: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return all pre-codes and the columns of the k largest of each row; see ``products``."""
    pre = torch.mm(centred, W_rows.T, out=empty(len(centred), len(W_rows)))
    return pre, _largest(pre, b_enc, k)


def reconstruct(
    pre: Tensor, centred: Tensor, W_dec: Tensor, pairs: Pairs, ends: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return codes [n_pairs], errors [n_prefixes, batch, d_model] and their sum of squares; see ``products``."""
    values, errors = torch.empty(len(pairs)), empty(len(ends), *centred.shape)
    squares = torch.empty(errors.shape[:2])
    tensors = (pre, centred, W_dec, pairs.row_offsets, pairs.features, ends, values, errors, squares)
    _run(loops.reconstruct, _parts(len(pairs) * W_dec.shape[1], len(centred)), *_arrays(tensors))
    return values, errors, squares.sum()


def gradients(
    grads: Tensor,
    factor: float,
    values: Tensor,
    centred: Tensor,
    W_rows: Tensor,
    W_dec: Tensor,
    pairs: Pairs,
    ends: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients by W_enc and b_enc, W_dec and b_dec; see ``products``."""
    n_features, d_model = W_dec.shape
    results = empty(n_features, d_model), torch.empty(n_features), empty(n_features, d_model), torch.empty(d_model)
    d_W_rows, d_b_enc, d_W_dec, d_b_dec = _arrays(results)
    grad, *inputs = _arrays((grads, values, centred, W_dec, *pairs.by_feature, ends))
    _run(loops.weight_gradients, _by_work(pairs, d_model), grad, factor, *inputs, d_W_dec, d_W_rows, d_b_enc)
    work = len(centred) * d_model + W_rows.numel()
    _run(loops.bias_gradient, _parts(work, d_model), grad[0], factor, d_b_enc, *_arrays((W_rows,)), d_b_dec)
    return results


class Update(NamedTuple):
    """A step of Adam for some weights; a vector counts as one row."""

    weight: Tensor
    grad: Tensor
    mean: Tensor
    square: Tensor
    numbers: Sequence[float]
    """beta_1, beta_2, step size, 1 / root of 1 - beta_2^step, eps."""
    unit_rows: bool


def adam(updates: Sequence[Update]) -> None:
    """Take a step of Adam in place; each thread does its part of all weights."""
    work = 4 * sum(update.weight.numel() for update in updates)
    calls = []
    for *tensors, numbers, unit_rows in updates:
        arrays = [x if x.ndim == 2 else x[None] for x in _arrays(tensors)]
        calls.append((arrays, [*numbers, unit_rows], _parts(work, len(arrays[0]))))

    def part(i: int) -> None:
        for arrays, others, bounds in calls:
            loops.adam(*arrays, *others, bounds[i], bounds[i + 1])

    _in_threads(part, len(_parts(work, 0)) - 1)


def _arrays(tensors: Iterable[Tensor]) -> list[np.ndarray]:
    return [(x.detach() if x.requires_grad else x).contiguous().numpy() for x in tensors]


def _parts(work: int, n: int) -> list[int]:
    """Return where each part of n begins, one for each thread, and at last n.

    The first part is this thread's, and larger by what it does until the others have begun; it is the only one of work
    that hardly takes longer than that.

    Args:
        work: Numbers that are read in all.
        n: Rows, features or columns.
    """
    if work <= 2 * WAKING:
        return [0, n]
    ahead, n_parts = WAKING / work, torch.get_num_threads()
    return [0, *(math.ceil(n * (ahead + (1 - ahead) * i / n_parts)) for i in range(1, n_parts)), n]


def _by_work(pairs: Pairs, width: int) -> list[int]:
    """Return the same for features, which cost a row of the gradient each and one for each of their pairs."""
    offsets = pairs.by_feature.offsets.numpy()
    work = offsets + np.arange(len(offsets))
    n = int(work[-1])
    return [0, *np.searchsorted(work, _parts(3 * width * n, n)[1:-1]).tolist(), pairs.n_features]


def _run(loop: Callable[..., None], bounds: Sequence[int], *arrays: Any) -> None:
    """Run a loop over its parts, one in each thread."""
    _in_threads(lambda i: loop(*arrays, bounds[i], bounds[i + 1]), len(bounds) - 1)


def _in_threads(part: Callable[[int], None], n: int) -> None:
    others = [_threads(os.getpid(), n).submit(part, i) for i in range(1, n)]
    part(0)
    for other in others:
        other.result()


@cache
def _threads(_process: int, n: int) -> ThreadPoolExecutor:
    """Return this process's threads: a fork has none of its parent's."""
    return ThreadPoolExecutor(n - 1, "kernels")
