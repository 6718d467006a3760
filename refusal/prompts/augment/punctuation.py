"""The request with another mark at its end, or none."""

from __future__ import annotations

MARKS = {"none": "", "period": ".", "question": "?", "exclamation": "!", "ellipsis": "..."}


def ways(text: str) -> dict[str, str]:
    """Return the text with each of the marks in place of those that it ends in."""
    words = text.rstrip().rstrip(".?!\u2026").rstrip()
    return {name: words + mark for name, mark in MARKS.items() if words}
