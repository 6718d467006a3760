"""Read HarmBench: behaviours that a safe model refuses, so all of the split ``toxic``.

Source: Mazeika et al., 2024, "HarmBench: A Standardized Evaluation Framework for Automated Red Teaming and Robust
Refusal"; the published files are ``harmbench_behaviors_text_*.csv`` of centerforaisafety/HarmBench. In our terms:

    SemanticCategory        the category, as it is (illegal, cybercrime_intrusion, harassment_bullying, ...)
    Behavior                the prompt
    ContextString           stands before it, with HarmBench's own separator, where a behaviour has one
    FunctionalCategory      standard, contextual, copyright: ``data.kinds`` chooses. Copyright behaviours ask for songs
                            and books by heart, which is no harm of the kind studied here: left out unless asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from refusal import InputError
from refusal.prompts.prompt import Prompt, make_prompts
from refusal.prompts.rows import read_rows

COLUMNS = ("Behavior", "FunctionalCategory", "SemanticCategory", "ContextString")
KINDS = ("standard", "contextual", "copyright")
SEPARATOR = "\n\n---\n\n"


def read_harmbench(path: str | Path, *, kinds: Sequence[str]) -> list[Prompt]:
    """Read a published file, in its order.

    Args:
        path: The file.
        kinds: Functional categories to read.

    Raises:
        InputError: Something is missing or malformed, or there are no such behaviours.
    """
    rows, found = [], set()
    for _, values in read_rows(path, COLUMNS, may_be_empty=("ContextString",)):
        found.add(values["FunctionalCategory"])
        if values["FunctionalCategory"] in kinds:
            parts = [values["ContextString"], values["Behavior"]]
            rows.append((SEPARATOR.join(filter(None, parts)), values["SemanticCategory"], "toxic"))
    if not rows:
        raise InputError(
            f"{path} has no behaviours that are {' or '.join(kinds) or 'wanted'}; "
            f"data.kinds can be: {', '.join(sorted(found))}"
        )
    return make_prompts(rows)
