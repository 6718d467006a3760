"""One prompt: its text, its category of harm, the split it comes from, and the fold it was put into."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

SPLITS = ("safe", "hard", "toxic")  # or-bench-80k, or-bench-hard-1k, or-bench-toxic
FOLDS = ("calibration", "train", "heldout")
CATEGORIES = (
    "deception",
    "harassment",
    "harmful",
    "hate",
    "illegal",
    "privacy",
    "self-harm",
    "sexual",
    "unethical",
    "violence",
)


@dataclass(frozen=True)
class Prompt:
    """A prompt as the data set gives it."""

    id: str
    """16 hexadecimal digits that name it, whatever its place in the file."""
    text: str
    category: str
    split: str
    fold: str = ""
    """One of ``FOLDS`` once it has been drawn."""
    source: str = ""
    """Id of the prompt that it was made from; empty: it is an original."""
    variant: str = ""
    """Name of the augmentation that made it; empty: it is an original."""


def make_prompts(rows: Iterable[tuple[str, str, str]]) -> list[Prompt]:
    """Make prompts of (text, category, split); the id tells copies of one row apart by their number."""
    copies: Counter[tuple[str, str, str]] = Counter()
    prompts = []
    for text, category, split in rows:
        content = "\0".join((split, category, text, str(copies[text, category, split])))
        copies[text, category, split] += 1
        prompts.append(Prompt(hashlib.sha256(content.encode()).hexdigest()[:16], text, category, split))
    return prompts
