"""The part of OR-Bench that comes with the package, so that nothing has to be downloaded (CC-BY-4.0)."""

from __future__ import annotations

from pathlib import Path

from refusal.prompts.orbench import read_orbench
from refusal.prompts.prompt import Prompt


def mini_folder() -> Path:
    """Return the folder with the three files; its ATTRIBUTION.md says whose they are, and what is left out."""
    return Path(__file__).parent / "or_bench_mini"


def read_mini() -> list[Prompt]:
    """Read its prompts."""
    return read_orbench(mini_folder())
