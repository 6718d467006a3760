"""The request in a neutral frame, which asks for it in other words."""

from __future__ import annotations

FRAMES = {
    "answer": ("Please answer this: ", ""),
    "request": ("Here is my request: ", ""),
    "respond": ("Respond to the following.\n\n", ""),
    "above": ("", "\n\nPlease respond to the request above."),
}


def ways(text: str) -> dict[str, str]:
    """Return the text in each frame."""
    return {name: f"{before}{text}{after}" for name, (before, after) in FRAMES.items()}
