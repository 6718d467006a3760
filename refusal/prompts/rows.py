"""Read a table of texts, row by row: CSV, TSV, or JSON lines; every mistake in a file is one line with its place."""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from refusal import InputError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = ".jsonl"


class Row(NamedTuple):
    """One row of a table."""

    place: str
    """Where it stands, for messages: ``FILE, row 3``, as a spreadsheet counts, or ``FILE, line 3``."""
    values: dict[str, str]
    """By column."""


def read_rows(path: str | Path, columns: Sequence[str], *, may_be_empty: Collection[str] = ()) -> list[Row]:
    """Read these columns of a file, which may have others besides.

    Args:
        path: A file in UTF-8 that ends in ``.csv``, ``.tsv`` (both with a header) or ``.jsonl`` (an object a line).
        columns: Their names.
        may_be_empty: Those of them in which a row may say nothing.

    Raises:
        InputError: The file cannot be read, or is malformed; names the file, the row and the column.
    """
    path = Path(path).expanduser()
    text = _text(path)
    kind = path.suffix.lower()
    if kind == JSON_LINES:
        rows = list(_json_lines(path, text, columns))
    elif kind in DELIMITERS:
        rows = list(_delimited(path, text, columns, DELIMITERS[kind]))
    else:
        raise InputError(f"{path} is no table that can be read; its name has to end in .csv, .tsv or .jsonl")
    if not rows:
        raise InputError(f"{path} has no rows{'' if kind == JSON_LINES else ' below its header'}")
    for row in rows:
        for column in columns:
            if column not in may_be_empty and not row.values[column].strip():
                raise InputError(f"{row.place}, column {column}: empty; every row needs a {column}")
    return rows


def guess(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` with the known name that is nearest to this one; nothing if none is near."""
    lowered = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.strip().lower(), lowered, n=1, cutoff=0.7)
    return f" (did you mean {lowered[close[0]]!r}?)" if close else ""


def _text(path: Path) -> str:
    """Return a file's text, without the mark that spreadsheets put at its beginning."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"there is no {path}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8 text; save the file in UTF-8") from error


def _check_columns(place: str, columns: Sequence[str], found: Sequence[str]) -> None:
    if missing := [f"no column {column}{guess(column, found)}" for column in columns if column not in found]:
        there = f"its columns are: {', '.join(found)}" if found else "it is empty"
        raise InputError(f"{place}: {' and '.join(missing)}; {there}")


# --- CSV and TSV --------------------------------------------------------------------------------------------


def _delimited(path: Path, text: str, columns: Sequence[str], delimiter: str) -> Iterator[Row]:
    records = _records(path, text, delimiter)
    _, header = next(records, (1, []))
    _check_columns(f"{path}, row 1", columns, header)
    for row, fields in records:
        if len(fields) != len(header):
            raise InputError(
                f"{path}, row {row}: the header has {len(header)} fields, this row {len(fields)}; "
                "a text with a separator or a line break has to stand in double quotes"
            )
        yield Row(f"{path}, row {row}", {column: fields[header.index(column)] for column in columns})


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows and their numbers as a spreadsheet counts them, from 1; blank lines are passed over."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    row = 0
    try:
        for row, fields in enumerate(reader, start=1):
            if fields:
                yield row, fields
    except csv.Error as error:
        raise InputError(f"{path}, row {row + 1}: not valid CSV ({error}); a quote inside quotes is doubled") from error


# --- JSON lines ---------------------------------------------------------------------------------------------


def _json_lines(path: Path, text: str, columns: Sequence[str]) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):  # a string may hold the other separators of lines
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{place}: not valid JSON ({error}); every line is one object") from error
        if not isinstance(record, dict):
            raise InputError(f"{place}: not an object; every line is one, with the columns {', '.join(columns)}")
        _check_columns(place, columns, list(record))
        yield Row(place, {column: _plain(f"{place}, column {column}", record[column]) for column in columns})


def _plain(place: str, value: Any) -> str:
    """Return a JSON value as the text that a table would have."""
    if isinstance(value, list | dict):
        raise InputError(f"{place}: not a text but {'a list' if isinstance(value, list) else 'an object'}")
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{place}: half of a surrogate pair (\\ud800 to \\udfff), which is no text") from error
    return text
