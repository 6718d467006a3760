"""The products of a training step on a CPU, for float32: ``loops`` in threads, into memory of the step before.

New memory costs more than the sums that fill it: the system clears it page by page, 30 ms for the gradient of a
decoder of 134 MB that is computed in 20. So ``empty`` gives the memory of tensors that are gone to new ones of the same
shape, in huge pages where the system has them (NumPy asks for those, torch does not).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from refusal.sae.kernels import loops
from refusal.sae.kernels.pairs import Pairs

WORTH_KEEPING = 1 << 20  # bytes; smaller memory is kept by the C library itself

_memory: dict[tuple[int, ...], list[np.ndarray]] = {}


def empty(*shape: int) -> Tensor:
    """Return a float32 tensor of any content, in memory that no tensor uses any more."""
    if 4 * int(np.prod(shape)) < WORTH_KEEPING:
        return torch.empty(shape)
    kept = _memory.setdefault(shape, [])
    for i in range(len(kept)):
        if _references(kept[i]) == UNUSED:
            return torch.from_numpy(kept[i])
    kept.append(np.empty(shape, dtype=np.float32))
    return torch.from_numpy(kept[-1])


def _references(array: np.ndarray) -> int:
    return sys.getrefcount(array)


_held = [np.empty(0)]
UNUSED = _references(_held[0])  # of an array that only a list holds


def release() -> None:
    """Give back the memory that is kept, once a training is over; tensors keep what they use."""
    _memory.clear()


def largest(x: Tensor, k: int) -> Tensor:
    """Return the columns of the k largest entries of each row, [batch, k], in no order."""
    columns = torch.empty(len(x), k, dtype=torch.int64)
    _run(loops.largest, _even(len(x)), x.contiguous().numpy(), columns.numpy())
    return columns


def decode_gradients(grad: Tensor, values: Tensor, W_dec: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Return the gradients by the values [n_pairs] and by W_dec [n_features, d_model]; see ``products``."""
    d_values, d_W_dec = torch.empty_like(values), empty(*W_dec.shape)
    arrays = [x.numpy() for x in (grad.contiguous(), values, W_dec, *pairs.by_feature, d_values, d_W_dec)]
    _run(loops.decode_gradients, _by_work(pairs), *arrays)
    return d_values, d_W_dec


def gather_gradients(grad: Tensor, centred: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Return the gradients by the encoder [n_features, d_model] and by b_enc [n_features]; see ``products``."""
    d_W_rows, d_b_enc = empty(pairs.n_features, centred.shape[1]), torch.empty(pairs.n_features)
    arrays = [x.numpy() for x in (grad, centred.contiguous(), *pairs.by_feature, d_W_rows, d_b_enc)]
    _run(loops.gather_gradients, _by_work(pairs), *arrays)
    return d_W_rows, d_b_enc


def normalise_rows(W: Tensor) -> None:
    """Bring the rows [n, width] to unit length, in place; rows of zeros stay."""
    _run(loops.normalise_rows, _even(len(W)), W.numpy())


def _even(n: int) -> list[int]:
    """Return where each thread's part of n begins, and at last n."""
    n_threads = torch.get_num_threads()
    return [n * i // n_threads for i in range(n_threads + 1)]


def _by_work(pairs: Pairs) -> list[int]:
    """Return the same for features, which cost a row of the gradient each and one for each of their pairs."""
    offsets = pairs.by_feature.offsets.numpy()
    work = offsets + np.arange(len(offsets))
    return [0, *np.searchsorted(work, _even(int(work[-1]))[1:-1]).tolist(), pairs.n_features]


def _run(loop: Callable[..., None], bounds: Sequence[int], *arrays: np.ndarray) -> None:
    """Run a loop over its parts, one in each thread."""
    parts = list(pairwise(bounds))
    others = [_threads(os.getpid(), len(parts)).submit(loop, *arrays, *part) for part in parts[1:]]
    loop(*arrays, *parts[0])
    for other in others:
        other.result()


@cache
def _threads(_process: int, n: int) -> ThreadPoolExecutor:
    """Return this process's threads: a fork has none of its parent's."""
    return ThreadPoolExecutor(n - 1, "kernels")
