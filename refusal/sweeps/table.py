"""Records with the same keys as a table: for people, as text or Markdown, and for programs, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

Rows = Sequence[Mapping[str, object]]


def without_empty(rows: Rows) -> list[dict[str, object]]:
    """Return the rows without the columns in which none of them has a value."""
    kept = [name for name in (rows[0] if rows else ()) if any(row[name] is not None for row in rows)]
    return [{name: row[name] for name in kept} for row in rows]


def text_table(rows: Rows) -> str:
    """Return aligned columns, fractions with three digits; what is not known is a dash."""
    cells = [list(rows[0]), *([_written(value) for value in row.values()] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def markdown(rows: Rows) -> str:
    """Return a table as Markdown has it."""
    cells = [list(rows[0]), ["---"] * len(rows[0]), *([_written(value) for value in row.values()] for row in rows)]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in cells)


def csv_text(rows: Rows) -> str:
    """Return comma-separated values with all digits; what is not known is empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _written(value: object) -> str:
    if isinstance(value, float) and abs(value) < 1000:
        return f"{value:.3g}"
    return "-" if value is None else f"{value:,.0f}" if isinstance(value, float) else str(value)
