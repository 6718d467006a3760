"""The nearest valid names to a mistyped one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

FEW = 12


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three known names that look like this one, or end in it, the nearest first."""
    known = sorted(set(known))
    lowered = {other.lower(): other for other in known}
    ending = [other for other in known if other.endswith(f".{name}")]
    close = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3)]
    tails = {other.rpartition(".")[2].lower(): other for other in known}
    near_tail = [tails[match] for match in difflib.get_close_matches(name.lower(), tails, n=1, cutoff=0.8)]
    return list(dict.fromkeys([*ending, *close, *near_tail]))[:3]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean a or b?``, with all of the known names where they are few or none is near."""
    known = sorted(set(known))
    near = nearest(name, known)
    question = f"did you mean {' or '.join(near)}?" if near else ""
    if near and len(known) > FEW:
        return question
    return f"{question} The names are {', '.join(known)}".strip()
