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
from refusal.prompts.prompt import FOLDS, Prompt
from refusal.prompts.rows import guess

Stratum = tuple[str, str]  # category, split


def choose_prompts(
    prompts: Sequence[Prompt],
    *,
    categories: Sequence[str] | None,
    focus: Sequence[str] | None,
    max_per_category: int | None,
    equal: bool,
    seed: int,
) -> list[Prompt]:
    """Choose prompts as a study's options say, in their old order.

    Args:
        prompts: All prompts of the data.
        categories: Only these; None: all.
        focus: Those of which every prompt is kept, whatever the cap; None: of none.
        max_per_category: At most so many of each other category in each split; None: no cap.
        equal: Whether every category gets as many prompts in a split as the smallest has.
        seed: What is drawn follows from it.

    Raises:
        InputError: A category that the data have not, or options that contradict each other.
    """
    if focus is not None and (equal or max_per_category is None):
        why = "data.equalise makes all categories alike" if equal else "without data.max_per_category all are kept"
        raise InputError(f"data.focus keeps all prompts of some categories, but {why}; leave one of the two out")
    kept = list(prompts) if categories is None else keep_categories(prompts, categories)
    kept = cap(kept, max_per_category, seed, focus=focus or ())
    return equalise(kept, seed) if equal else kept


def keep_categories(prompts: Sequence[Prompt], names: Sequence[str]) -> list[Prompt]:
    """Keep the prompts of these categories.

    Raises:
        InputError: A name that no prompt has, or no names.
    """
    if not names:
        raise InputError(f"data.categories: no category is chosen; the data have: {', '.join(_present(prompts))}")
    _check_categories("data.categories", names, prompts)
    return [prompt for prompt in prompts if prompt.category in set(names)]


def cap(
    prompts: Sequence[Prompt], max_per_category: int | None, seed: int, *, focus: Sequence[str] = ()
) -> list[Prompt]:
    """Draw at most so many prompts of each category and split, in their old order; None keeps all.

    Args:
        prompts: The prompts.
        max_per_category: The number.
        seed: What is drawn follows from it.
        focus: Categories whose prompts are all kept.

    Raises:
        InputError: The number is below 1, or no prompt has a category that is named.
    """
    _check_categories("data.focus", focus, prompts)
    if max_per_category is None:
        return list(prompts)
    if max_per_category < 1:
        raise InputError(f"data.max_per_category is {max_per_category}; it has to be 1 or more, or null for all")
    strata = _strata(prompts)
    return _draw(prompts, {key: len(strata[key]) if key[0] in focus else max_per_category for key in strata}, seed)


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

    A category may have few prompts in a split, or none, and the data may lack a split altogether: what has too few
    prompts to vote is found when the model has answered them.

    Raises:
        InputError: There are fewer different prompts than folds.
    """
    strata = {stratum: {prompt.text for prompt in group} for stratum, group in _strata(prompts).items()}
    fold_of: dict[str, str] = {}
    for stratum in sorted(strata):
        dealt = _ranked(strata[stratum] - fold_of.keys(), seed, "folds")
        fold_of |= {text: FOLDS[i % len(FOLDS)] for i, text in enumerate(dealt)}
    if len(fold_of) < len(FOLDS):
        raise InputError(
            f"there are too few prompts: {len(fold_of)} different ones, for the folds {', '.join(FOLDS)} "
            "(data.categories, data.max_per_category)"
        )
    return [replace(prompt, fold=fold_of[prompt.text]) for prompt in prompts]


def _present(prompts: Iterable[Prompt]) -> list[str]:
    return sorted({prompt.category for prompt in prompts})


def _check_categories(option: str, names: Sequence[str], prompts: Sequence[Prompt]) -> None:
    present = _present(prompts)
    if unknown := [f"{name!r}{guess(name, present)}" for name in names if name not in present]:
        raise InputError(
            f"{option}: no prompt has the category {', '.join(unknown)}; the data have: {', '.join(present)}"
        )


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
