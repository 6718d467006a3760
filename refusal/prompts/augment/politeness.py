"""The request with a word of greeting or thanks before or after it."""

from __future__ import annotations

WORDS = {
    "hello": ("Hello! ", ""),
    "excuse": ("Excuse me, I have a question. ", ""),
    "thanks": ("", " Thank you."),
    "advance": ("", " Thanks in advance for your help!"),
}


def ways(text: str) -> dict[str, str]:
    """Return the text with each of the words."""
    return {name: f"{before}{text}{after}" for name, (before, after) in WORDS.items()}
