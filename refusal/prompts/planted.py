"""Prompts for the planted models, in made-up words, in OR-Bench's three splits.

A prompt has one or two words of its category's topic and as many marker words, among fillers:
``safe`` prompts have calm markers, ``hard`` ones markers that only look harmful, ``toxic`` ones harm words.
The planted models (``models/planted.py``) refuse exactly where a topic meets a harm word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from refusal.prompts.prompt import CATEGORIES, SPLITS, Prompt, make_prompts

WORDS_PER_TOPIC = 6
WORDS_PER_MARKER = 8
N_FILLERS = 40
_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"


@dataclass(frozen=True)
class Vocabulary:
    """The made-up words of one family of planted models."""

    topics: Mapping[str, tuple[str, ...]]
    """Topic words of each category."""
    markers: Mapping[str, tuple[str, ...]]
    """Marker words of each split."""
    fillers: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """All words, in a fixed order."""
        groups = [*self.topics.values(), *self.markers.values(), self.fillers]
        return [word for group in groups for word in group]


def make_vocabulary(seed: int = 0, categories: Sequence[str] = CATEGORIES) -> Vocabulary:
    """Draw the words of a family; no word has two meanings."""
    rng = np.random.default_rng([seed, 1])
    n_words = WORDS_PER_TOPIC * len(categories) + WORDS_PER_MARKER * len(SPLITS) + N_FILLERS
    words: dict[str, None] = {}
    while len(words) < n_words:
        words["".join(rng.choice(list(_CONSONANTS)) + rng.choice(list(_VOWELS)) for _ in range(3))] = None
    stream = iter(words)

    def take(n: int) -> tuple[str, ...]:
        return tuple(next(stream) for _ in range(n))

    return Vocabulary(
        topics={category: take(WORDS_PER_TOPIC) for category in categories},
        markers={split: take(WORDS_PER_MARKER) for split in SPLITS},
        fillers=take(N_FILLERS),
    )


def planted_prompts(vocabulary: Vocabulary, *, n_safe: int, n_hard: int, n_toxic: int, seed: int = 0) -> list[Prompt]:
    """Write prompts for every category: so many of each split."""
    rng = np.random.default_rng([seed, 2])
    counts = dict(zip(SPLITS, (n_safe, n_hard, n_toxic), strict=True))
    rows = [
        (_sentence(vocabulary, category, split, rng), category, split)
        for split in SPLITS
        for category in vocabulary.topics
        for _ in range(counts[split])
    ]
    return make_prompts(rows)


def _sentence(vocabulary: Vocabulary, category: str, split: str, rng: np.random.Generator) -> str:
    n_content = int(rng.integers(1, 3))
    words = [
        *rng.choice(vocabulary.topics[category], n_content),
        *rng.choice(vocabulary.markers[split], n_content),
        *rng.choice(vocabulary.fillers, int(rng.integers(4, 10))),
    ]
    return " ".join(rng.permutation(words))
