"""Count the prompts of each category and split, and warn where few of them are toxic.

The published files hold 125 safe prompts to a toxic one: what is learnt from such data is learnt from safe text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from refusal.prompts.prompt import SPLITS, Prompt

SCHEMA_VERSION = 1
TOXIC_PERCENT = 10  # a category below this is warned about


def split_statistics(prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Count prompts; those that augmentation made are no prompts of the data.

    Returns:
        ``categories``: for each, in alphabetical order, and ``total``: for all of them, the number of ``safe``,
        ``hard`` and ``toxic`` prompts, their sum ``all``, and ``toxic_share`` = toxic / (safe + hard + toxic);
        ``warnings``: a line for each category in which under 10 % are toxic.
    """
    counts = Counter((prompt.category, prompt.split) for prompt in prompts if not prompt.variant)
    categories = {
        category: _summary({split: counts[category, split] for split in SPLITS})
        for category in sorted({category for category, _ in counts})
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "categories": categories,
        "total": _summary({split: sum(row[split] for row in categories.values()) for split in SPLITS}),
        "warnings": [
            f"category {name!r}: {row['toxic_share']:.1%} of its prompts are toxic "
            f"({row['toxic']:,} of {row['all']:,}), under {TOXIC_PERCENT}%"
            for name, row in categories.items()
            if row["toxic"] * 100 < row["all"] * TOXIC_PERCENT
        ],
    }


def _summary(counts: dict[str, int]) -> dict[str, Any]:
    n = sum(counts.values())
    return {**counts, "all": n, "toxic_share": counts["toxic"] / n if n else None}
