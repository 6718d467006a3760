"""Read OR-Bench: a folder with three CSV files, one a split, with the columns ``prompt`` and ``category``.

The files are those of the published data set (bench-llm/or-bench on the Hugging Face hub; Cui et al., 2024).
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from refusal import InputError
from refusal.prompts.prompt import CATEGORIES, SPLITS, Prompt, make_prompts

FILES = {"safe": "or-bench-80k.csv", "hard": "or-bench-hard-1k.csv", "toxic": "or-bench-toxic.csv"}
COLUMNS = ("prompt", "category")


def read_orbench(folder: Path, *, categories: Sequence[str] | None = CATEGORIES) -> list[Prompt]:
    """Read the three files of a folder.

    Args:
        folder: Where the files of ``FILES`` are.
        categories: The names that are allowed; None takes the names as the files give them.

    Returns:
        All prompts: safe, hard, toxic, each in the order of its file.

    Raises:
        InputError: Something is missing or malformed; names the file, the row and the column.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; it has to hold {', '.join(FILES.values())}")
    return make_prompts(
        (text, category, split) for split in SPLITS for text, category in read_csv(folder / FILES[split], categories)
    )


def read_csv(path: Path, categories: Sequence[str] | None) -> list[tuple[str, str]]:
    """Return a file's (prompt, category) pairs; raises ``InputError`` as ``read_orbench`` does."""
    records = _records(path)
    _, header = next(records, (1, []))
    if missing := [column for column in COLUMNS if column not in header]:
        found = f"its columns are: {', '.join(header)}" if header else "it is empty"
        raise InputError(f"{path}, row 1: no column {' and no column '.join(missing)}; {found}")
    places = [header.index(column) for column in COLUMNS]
    rows = []
    for row, fields in records:
        if len(fields) != len(header):
            raise InputError(
                f"{path}, row {row}: the header has {len(header)} fields, this row {len(fields)}; "
                "a prompt with a comma or a line break has to stand in double quotes"
            )
        text, category = (fields[place] for place in places)
        for column, value in zip(COLUMNS, (text, category), strict=True):
            if not value.strip():
                raise InputError(f"{path}, row {row}, column {column}: empty; every row needs a {column}")
        if categories is not None and category not in categories:
            raise InputError(f"{path}, row {row}, column category: {_unknown(category, categories)}")
        rows.append((text, category))
    if not rows:
        raise InputError(f"{path} has no rows below its header; every one of the three splits needs prompts")
    return rows


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield a file's rows and their numbers as a spreadsheet counts them, from 1; blank lines are passed over."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    row = 0
    try:
        for row, fields in enumerate(reader, start=1):
            if fields:
                yield row, fields
    except csv.Error as error:
        raise InputError(f"{path}, row {row + 1}: not valid CSV ({error}); a quote inside quotes is doubled") from error


def _text(path: Path) -> str:
    """Return a file's text, without the mark that spreadsheets put at its beginning."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"there is no {path}; the folder has to hold {', '.join(FILES.values())}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8 text; save the file as CSV in UTF-8") from error


def _unknown(category: str, categories: Sequence[str]) -> str:
    close = difflib.get_close_matches(category.strip().lower(), categories, n=1)
    guess = f" (did you mean {close[0]!r}?)" if close else ""
    return f"unknown category {category!r}{guess}; the categories are: {', '.join(categories)}"
