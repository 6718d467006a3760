"""The nearest valid names to a mistyped one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

FEW = 12


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three known names that look like this one, the nearest first."""
    known = sorted(set(known))
    lowered = {other.lower(): other for other in known}
    return [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.6)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean a or b?``, or all of the known names where none is near or they are few."""
    known = sorted(set(known))
    near = nearest(name, known)
    question = f"; did you mean {' or '.join(near)}?" if near else ""
    if len(known) <= FEW:
        return f"{question or ';'} {'It' if near else 'it'} can be {', '.join(known)}"
    return question
