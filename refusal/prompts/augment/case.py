"""The request in other cases of letters."""

from __future__ import annotations

import re


def ways(text: str) -> dict[str, str]:
    """Return the text in small letters, in capitals, and with each word capitalised."""
    title = re.sub(r"\S+", lambda word: word[0][0].upper() + word[0][1:], text)
    return {"lower": text.lower(), "upper": text.upper(), "title": title}
