"""What the processes of a distributed training tell each other, so that they stay the same autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def n_ranks() -> int:
    """Return the number of processes that train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def total(counts: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes; with one process, the tensor itself."""
    if n_ranks() == 1:
        return counts
    summed = counts.clone()
    distributed.all_reduce(summed)
    return summed


def nth_largest(values: Tensor, n: int) -> Tensor:
    """Return the n-th largest of the values [any number] of all processes, []; the least of all if they are fewer."""
    together = values.new_full((n_ranks(), n), -torch.inf)  # processes send equally many
    own = values.topk(min(n, len(values)), sorted=False).values
    padded = torch.cat([own, values.new_full((n - len(own),), -torch.inf)])
    distributed.all_gather_into_tensor(together.view(-1), padded)
    return together.view(-1).topk(n, sorted=False).values.min()


def least(value: Tensor) -> Tensor:
    """Return the least of a value [] of all processes; with one process, the value itself."""
    if n_ranks() > 1:
        value = value.clone()
        distributed.all_reduce(value, op=distributed.ReduceOp.MIN)
    return value


def agree_on_idle(rows_since_fired: Tensor, n_rows: int) -> None:
    """Correct, in place, for how many rows features have not fired: 0 where one fired on any process.

    Args:
        rows_since_fired: As this process has counted its own rows, [d_sae].
        n_rows: How many rows of the batch are this process's.
    """
    if n_ranks() == 1:
        return
    others = int(total(torch.tensor(n_rows, device=rows_since_fired.device))) - n_rows
    rows_since_fired += others * (rows_since_fired > 0)
    distributed.all_reduce(rows_since_fired, op=distributed.ReduceOp.MIN)
