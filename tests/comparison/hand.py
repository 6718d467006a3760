"""Small studies written by hand: two categories, and a model in which every write is a multiple of the embedding."""

from __future__ import annotations

from typing import Any

import numpy as np

from refusal.comparison.contrast import Contrast
from refusal.comparison.knockout import KnockOuts
from tests.circuits.linear import linear_chat, prompt

NOTHING = np.zeros((2, 2)).tolist()
IDENTITY = np.eye(2).tolist()


def contrast(category: Any, refused: Any, half: Any, *, writes: Any = None, score: Any = None) -> Contrast:
    """Categories a, b; by default two blocks of d_model 2 that write nothing."""
    n = len(category)
    return Contrast(
        categories=["a", "b"],
        prompts=[prompt(0, i) for i in range(n)],
        category=np.array(category),
        refused=np.array(refused, dtype=bool),
        half=np.array(half),
        score=np.zeros(n) if score is None else np.array(score, dtype=float),
        writes=np.zeros((n, 2, 2, 2), np.float32) if writes is None else np.array(writes, np.float32),
    )


def doubling(x: Any, category: Any, refused: Any, half: Any) -> KnockOuts:
    """A model of two blocks, whose attention writes nothing and whose MLPs write what they get: x, then 2x.

    The stream ends at 4x, and the refusal score is the sum of its two components.
    """
    x = np.array(x, dtype=np.float32)
    writes = np.zeros((len(x), 2, 2, 2), np.float32)
    writes[:, 0, 1], writes[:, 1, 1] = x, 2 * x
    chat = linear_chat(x, [(NOTHING, IDENTITY)] * 2, [1, 1])
    return KnockOuts(chat, contrast(category, refused, half, writes=writes, score=4 * x.sum(1)), [0], batch_size=3)


# Of each category and half two refused, then two complied prompts; category b stands one higher in its own component.
CATEGORY = [0] * 8 + [1] * 8
REFUSED = [1, 1, 0, 0] * 4
HALF = [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4
TOPIC = np.array([[0, 0]] * 8 + [[0, 1]] * 8)


def two_mechanisms() -> KnockOuts:
    """Category a refuses by the first component, b by the second: 3 if refused, 0 if not, plus the topic."""
    x = 3 * np.array(REFUSED)[:, None] * np.eye(2)[CATEGORY] + TOPIC
    return doubling(x, CATEGORY, REFUSED, HALF)


def one_mechanism() -> KnockOuts:
    """Both categories refuse by the first component."""
    x = 3 * np.array(REFUSED)[:, None] * np.eye(2)[[0] * 16] + TOPIC
    return doubling(x, CATEGORY, REFUSED, HALF)
