"""Read anyone's prompts: a table (CSV, TSV, JSON lines) whose columns are named, with one prompt a row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from refusal import InputError
from refusal.prompts.prompt import SPLITS, Prompt, make_prompts
from refusal.prompts.rows import Row, guess, read_rows

FIELDS = ("prompt", "category", "split")


def read_table(
    path: str | Path,
    *,
    columns: Mapping[str, str],
    category: str | None,
    split: str | None,
    split_values: Mapping[Any, str],
) -> list[Prompt]:
    """Read a table, in its order.

    Args:
        path: The file, in a form that ``read_rows`` reads.
        columns: The name of the column with the ``prompt``, the ``category``, the ``split``.
        category: The category of all its prompts; None: as its column says.
        split: The split of all its prompts; None: as its column says.
        split_values: What a value of the split's column (whatever its case) stands for, where it is no split itself.

    Raises:
        InputError: Something is missing or malformed; names the file, the row and the column.
    """
    _check("data.columns", columns, FIELDS)
    _check("data.split_values", split_values.values(), SPLITS)
    splits = {**{name: name for name in SPLITS}, **{str(key).casefold(): name for key, name in split_values.items()}}
    fixed = {"category": category, "split": split}
    return make_prompts(
        (
            row.values[columns["prompt"]],
            category or row.values[columns["category"]],
            split or _split(row, columns["split"], splits),
        )
        for row in read_rows(path, [columns[name] for name in FIELDS if fixed.get(name) is None])
    )


def _split(row: Row, column: str, splits: Mapping[str, str]) -> str:
    value = row.values[column].strip()
    if value.casefold() not in splits:
        raise InputError(
            f"{row.place}, column {column}: {value!r} is no split; say which of {', '.join(SPLITS)} it is: "
            f"data.split_values={{{value}: toxic}}"
        )
    return splits[value.casefold()]


def _check(option: str, given: Iterable[str], known: tuple[str, ...]) -> None:
    if wrong := [name for name in given if name not in known]:
        raise InputError(f"{option}: there is no {wrong[0]!r}{guess(wrong[0], known)}; it can be: {', '.join(known)}")
