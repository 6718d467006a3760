"""Read OR-Bench: a folder with three CSV files, one a split, with the columns ``prompt`` and ``category``.

The files are those of the published data set (bench-llm/or-bench on the Hugging Face hub; Cui et al., 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from refusal import InputError
from refusal.prompts.hub import download as fetch
from refusal.prompts.hub import find
from refusal.prompts.prompt import CATEGORIES, SPLITS, Prompt, make_prompts
from refusal.prompts.rows import guess, read_rows

REPO = "bench-llm/or-bench"
FILES = {"safe": "or-bench-80k.csv", "hard": "or-bench-hard-1k.csv", "toxic": "or-bench-toxic.csv"}


def read_orbench(
    dir: str | Path | None, *, download: bool = False, revision: str | None = None, also: Sequence[str] = ()
) -> list[Prompt]:
    """Read the three files.

    Args:
        dir: Where the files of ``FILES`` are, or a copy of the hub's cache that has them.
        download: Whether to get them from the hub instead.
        revision: Branch, tag or commit to download; None: the newest.
        also: Names of categories that are allowed besides OR-Bench's ten.

    Returns:
        All prompts: safe, hard, toxic, each in the order of its file.

    Raises:
        InputError: Something is missing or malformed; names the file, the row and the column.
    """
    names = list(FILES.values())
    if (dir is None) is not download:
        wrong = "OR-Bench is not at hand" if dir is None else "OR-Bench is asked for twice"
        raise InputError(f"{wrong}: give either data.dir=DIR, its folder, or data.download=true ({REPO} of the hub)")
    folder = fetch(REPO, names, revision) if dir is None else find(Path(dir).expanduser(), names)
    if absent := [name for name in names if not (folder / name).exists()]:
        raise InputError(f"there is no {folder / absent[0]}; the folder has to hold {', '.join(names)}")
    allowed = (*CATEGORIES, *also)
    return make_prompts(row for split in SPLITS for row in _read_split(folder / FILES[split], split, allowed))


def _read_split(path: Path, split: str, allowed: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return a file's (prompt, category, split)."""
    found = []
    for place, values in read_rows(path, ("prompt", "category")):
        category = values["category"]
        if category not in allowed:
            raise InputError(
                f"{place}, column category: unknown category {category!r}{guess(category, allowed)}; "
                f"the categories are: {', '.join(allowed)} (data.categories names others)"
            )
        found.append((values["prompt"], category, split))
    return found
