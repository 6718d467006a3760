"""The nearest valid names to a mistyped one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

FEW = 12


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three known names that contain this one, look like it, or end in its like; the nearest first."""
    known = sorted(set(known))
    lowered = {other.lower(): other for other in known}
    tails = {other.rpartition(".")[2].lower(): other for other in known}
    containing = [other for other in known if len(name) > 2 and name.lower() in other.lower()]
    close = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3)]
    close_tail = [tails[match] for match in difflib.get_close_matches(name.lower(), tails, n=1, cutoff=0.8)]
    return list(dict.fromkeys([*containing, *close, *close_tail]))[:3]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean a or b?``, with all of the known names where they are few."""
    known = sorted(set(known))
    near = nearest(name, known)
    question = f"did you mean {' or '.join(near)}?" if near else ""
    if len(known) > FEW:
        return question or "--help lists the valid names"
    return f"{question} valid: {', '.join(known)}".strip()
