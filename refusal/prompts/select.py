"""Choose among prompts and put them into folds.

What is drawn depends on the seed and on the prompts themselves, never on their order in a file or on the other
categories: prompts are ranked by a hash. So 20 a category are among the first 40, and a category that is left
out changes nothing for the others.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from refusal import InputError
from refusal.prompts.prompt import FOLDS, SPLITS, Prompt

Stratum = tuple[str, str]  # category, split
MIN_PER_SPLIT = 2


def keep_categories(prompts: Sequence[Prompt], names: Sequence[str]) -> list[Prompt]:
    """Keep the prompts of these categories.

    Raises:
        InputError: A name that no prompt has, or no names.
    """
    present = sorted({prompt.category for prompt in prompts})
    unknown = [name for name in names if name not in present]
    if unknown or not names:
        what = f"no prompt has the category {', '.join(map(repr, unknown))}" if unknown else "no category is chosen"
        raise InputError(f"data.categories: {what}; the data have: {', '.join(present)}")
    return [prompt for prompt in prompts if prompt.category in set(names)]


def cap(prompts: Sequence[Prompt], max_per_category: int | None, seed: int) -> list[Prompt]:
    """Draw at most so many prompts of each category and split, in their old order; None keeps all.

    Raises:
        InputError: The number is below 1.
    """
    if max_per_category is None:
        return list(prompts)
    if max_per_category < 1:
        raise InputError(f"data.max_per_category is {max_per_category}; it has to be 1 or more, or null for all")
    return _draw(prompts, dict.fromkeys(_strata(prompts), max_per_category), seed)


def equalise(prompts: Sequence[Prompt], seed: int) -> list[Prompt]:
    """Draw as many prompts of each category as the smallest one has, within each split; in their old order.

    Raises:
        InputError: A category has no prompts in a split that others have.
    """
    strata = _strata(prompts)
    categories = sorted({category for category, _ in strata})
    sizes: dict[Stratum, int] = {}
    for split in {split for _, split in strata}:
        counts = {category: len(strata.get((category, split), ())) for category in categories}
        if empty := [category for category, count in counts.items() if not count]:
            raise InputError(
                f"data.equalise: no {split} prompts in {', '.join(empty)}; leave such categories out (data.categories)"
            )
        sizes |= {(category, split): min(counts.values()) for category in categories}
    return _draw(prompts, sizes, seed)


def with_folds(prompts: Sequence[Prompt], seed: int) -> list[Prompt]:
    """Put a third of each category and split into each of ``FOLDS``; all copies of a text go into the same one.

    A category may have few prompts in a split, or none: what it has too few of to vote is found later.

    Raises:
        InputError: A split has fewer than two different prompts in all.
    """
    strata = {stratum: {prompt.text for prompt in group} for stratum, group in _strata(prompts).items()}
    for split in SPLITS:
        n_texts = len(set().union(*(texts for stratum, texts in strata.items() if stratum[1] == split)))
        if n_texts < MIN_PER_SPLIT:
            raise InputError(
                f"the split {split!r} has too few prompts: {n_texts}; it needs at least {MIN_PER_SPLIT} different ones "
                "(data.dir, data.categories)"
            )
    fold_of: dict[str, str] = {}
    for stratum in sorted(strata):
        dealt = _ranked(strata[stratum] - fold_of.keys(), seed, "folds")
        fold_of |= {text: FOLDS[i % len(FOLDS)] for i, text in enumerate(dealt)}
    return [replace(prompt, fold=fold_of[prompt.text]) for prompt in prompts]


def _strata(prompts: Iterable[Prompt]) -> dict[Stratum, list[Prompt]]:
    strata: defaultdict[Stratum, list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        strata[prompt.category, prompt.split].append(prompt)
    return dict(strata)


def _draw(prompts: Sequence[Prompt], sizes: Mapping[Stratum, int], seed: int) -> list[Prompt]:
    chosen: set[str] = set()
    for stratum, group in _strata(prompts).items():
        chosen.update(_ranked((prompt.id for prompt in group), seed, "draw")[: sizes[stratum]])
    return [prompt for prompt in prompts if prompt.id in chosen]


def _ranked(names: Iterable[str], seed: int, purpose: str) -> list[str]:
    """Return the names in an order that is random, but fixed by each name, the seed and the purpose alone."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}\0{purpose}\0{name}".encode()).digest())
