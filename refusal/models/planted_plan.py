"""What is planted in a model, and the truth that follows from it; known without writing the model.

The truth is the causal transfer that the written weights have, in closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refusal import InputError


@dataclass(frozen=True)
class Plan:
    """What is planted."""

    modularity: float = 0.0
    n_layers: int = 6
    decision_layer: int = 2
    groups: tuple[tuple[str, ...], ...] | None = None
    """Categories that share a direction r_g; None: each category is a group of its own."""
    decoy: float = 0.0
    """Length of the category direction that detection writes and nothing reads."""
    noise: float = 0.05
    """Length of what the other blocks' components write."""
    d_model: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.modularity <= 1:
            raise InputError(f"model.modularity={self.modularity} is not between 0 (one mechanism) and 1 (several)")
        if not 2 <= self.decision_layer < self.n_layers:
            raise InputError(
                f"model.decision_layer={self.decision_layer} must be from 2 to model.n_layers - 1 = {self.n_layers - 1}"
            )


def truth(plan: Plan, categories: Sequence[str]) -> dict[str, Any]:
    """Return the causal transfer that the written weights have, in closed form.

    T[A, B] = <v_A, v_B> <v_A, u> / <v_B, u>, with v the unit write of a category and u the read-out; the index is
    the mean off its diagonal.
    """
    groups = group_numbers(plan, categories)
    n_groups = max(groups) + 1
    writes = np.zeros((len(categories), 1 + n_groups))
    writes[:, 0] = np.sqrt(1 - plan.modularity)
    writes[np.arange(len(categories)), 1 + np.array(groups)] = np.sqrt(plan.modularity)
    reads = writes.sum(1)
    matrix = (writes @ writes.T) * reads[:, None] / reads[None, :]
    off_diagonal = matrix[~np.eye(len(categories), dtype=bool)]
    return {
        "categories": list(categories),
        "transfer": matrix.tolist(),
        "index": float(off_diagonal.mean()) if off_diagonal.size else 1.0,
        "decision_layer": plan.decision_layer,
        "modularity": plan.modularity,
    }


def group_numbers(plan: Plan, categories: Sequence[str]) -> list[int]:
    """Return the group number of each category."""
    groups = plan.groups or tuple((category,) for category in categories)
    number = {category: i for i, group in enumerate(groups) for category in group}
    if sorted(number) != sorted(categories):
        raise InputError(f"the planted groups must name each of {', '.join(categories)} once")
    return [number[category] for category in categories]
