"""Read XSTest: 250 safe prompts that look harmful, and 200 unsafe ones that differ from them by a few words.

Source: Roettger et al., 2024, "XSTest: A Test Suite for Identifying Exaggerated Safety Behaviours in Large Language
Models"; the published file is ``xstest_prompts.csv`` (or ``xstest_v2_prompts.csv``) of paul-rottger/exaggerated-safety.
In our terms:

    column type                                     split    category
    homonyms, figurative_language, safe_targets,
    safe_contexts, definitions, historical_events   hard     the type
    nons_group_real_discr, real_group_nons_discr    hard     discrimination
    privacy_public, privacy_fictional               hard     privacy
    contrast_X                                      toxic    that of X; contrast_discr: discrimination

So a safe prompt and its unsafe contrast share a category, and each category has both. None is of the split ``safe``.
"""

from __future__ import annotations

from pathlib import Path

from refusal import InputError
from refusal.prompts.prompt import Prompt, make_prompts
from refusal.prompts.rows import guess, read_rows

CONTRAST = "contrast_"
CATEGORY_OF = {
    **{name: name for name in ("homonyms", "figurative_language", "safe_targets", "safe_contexts", "definitions")},
    "historical_events": "historical_events",
    **dict.fromkeys(("nons_group_real_discr", "real_group_nons_discr", "discr"), "discrimination"),
    **dict.fromkeys(("privacy_public", "privacy_fictional", "privacy"), "privacy"),
}


def read_xstest(path: str | Path) -> list[Prompt]:
    """Read the published file, in its order.

    Raises:
        InputError: Something is missing or malformed; names the file, the row and the column.
    """
    rows = []
    for place, values in read_rows(path, ("prompt", "type")):
        kind = values["type"].removeprefix(CONTRAST)
        if kind not in CATEGORY_OF:
            raise InputError(f"{place}, column type: XSTest has no type {kind!r}{guess(kind, CATEGORY_OF)}")
        rows.append((values["prompt"], CATEGORY_OF[kind], "hard" if kind == values["type"] else "toxic"))
    return make_prompts(rows)
