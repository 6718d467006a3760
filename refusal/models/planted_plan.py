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
    spread: float = 0.0
    """How much the categories' own parts differ: from modularity - spread to modularity + spread, around one core."""
    superposition: float = 0.0
    """Share of its dimensions that the evidence of the categories does without: its directions overlap."""
    writers: int = 1
    """Number of blocks, from ``decision_layer`` on, that write the refusal, each an equal part."""
    joint: bool = False
    """Whether the deciding blocks also detect, so that nothing is written in between."""
    chatter: float = 0.0
    """Length of what the deciding blocks also write, at random from prompt to prompt and read by nothing; a refusal
    is written with a length of 0.7 to 1."""
    early_chatter: float = 0.0
    """The same of the block before them, which detects."""

    def __post_init__(self) -> None:
        if not 0 <= self.modularity <= 1:
            raise InputError(f"model.modularity={self.modularity} is not between 0 (one mechanism) and 1 (several)")
        if not 0 <= self.spread <= min(self.modularity, 1 - self.modularity):
            raise InputError(
                f"model.spread={self.spread} takes model.modularity={self.modularity} out of the range from 0 to 1"
            )
        if not 0 <= self.superposition <= 0.5:
            raise InputError(f"model.superposition={self.superposition} is not between 0 and 0.5")
        if not self.writers >= 1:
            raise InputError(f"model.writers={self.writers} must be 1 or more")
        last = self.n_layers - self.writers
        if not 2 <= self.decision_layer <= last:
            written = "model.n_layers - 1" if self.writers == 1 else "model.n_layers - model.writers"
            raise InputError(f"model.decision_layer={self.decision_layer} must be from 2 to {written} = {last}")

    @property
    def chatters(self) -> bool:
        """Whether anything is written at random from prompt to prompt."""
        return max(self.chatter, self.early_chatter) > 0

    @property
    def deciding(self) -> range:
        """The blocks that write the refusal."""
        return range(self.decision_layer, self.decision_layer + self.writers)


def truth(plan: Plan, categories: Sequence[str]) -> dict[str, Any]:
    """Return the causal transfer that the written weights have, in closed form.

    T[A, B] = <v_A, v_B> <v_A, u> / <v_B, u>, with v the unit write of a category and u the read-out; the index is
    the mean off its diagonal. It is the same for every deciding block, as all write alike; evidence in superposition,
    a decoy and chatter are not read, and leave it as it is.
    """
    groups = group_numbers(plan, categories)
    n_groups = max(groups) + 1
    own = own_shares(plan, categories)
    writes = np.zeros((len(categories), 1 + n_groups))
    writes[:, 0] = np.sqrt(1 - own)
    writes[np.arange(len(categories)), 1 + np.array(groups)] = np.sqrt(own)
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


def own_shares(plan: Plan, categories: Sequence[str]) -> np.ndarray:
    """Return the share of each category's write (of its square) that is its group's own, [n_categories]."""
    return plan.modularity + plan.spread * np.linspace(-1, 1, len(categories))


def group_numbers(plan: Plan, categories: Sequence[str]) -> list[int]:
    """Return the group number of each category."""
    groups = plan.groups or tuple((category,) for category in categories)
    number = {category: i for i, group in enumerate(groups) for category in group}
    if sorted(number) != sorted(categories):
        raise InputError(f"the planted groups must name each of {', '.join(categories)} once")
    return [number[category] for category in categories]
