"""Data flow one way: a folder imports only from those to its left; Hydra stays at the edge."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOW = (
    "prompts",
    "models",
    "activations",
    "sae",
    "circuits",
    "comparison",
    "report",
    "sweeps",
    "calibration",
    "study",
    "stages",
    "groups",
    "spread",
    "forecast",
    "pipeline",
)
FREE = (
    "refusal",
    "refusal.artifacts",
    "refusal.arguments",
    "refusal.progress",
    "refusal.style",
    "refusal.terminal",
    "refusal.config.schemas",
    "refusal.config.suggest",
)  # anyone may import from these
EDGE = ("refusal.config", "refusal.callbacks", "collect", "train", "discover")  # import what they need, and Hydra
FILES = sorted([*(ROOT / "refusal").rglob("*.py"), *ROOT.glob("*.py")])


def offences(module: str, source: str) -> Iterator[str]:
    """Yield what a module imports, anywhere in its source, but must not."""
    own = module.split(".")[1] if module.startswith("refusal.") else ""
    left = FLOW[: FLOW.index(own) + 1] if own in FLOW else ()
    for node in () if module.startswith(EDGE) else ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [(node.module, alias.name) for alias in node.names]
        else:
            names = [(alias.name, "") for alias in node.names] if isinstance(node, ast.Import) else []
        for source_module, name in names:
            folder = f"{source_module}.{name}.".split(".")[1]
            is_free = folder not in FLOW and (source_module in FREE or f"{source_module}.{name}".rstrip(".") in FREE)
            if source_module.split(".")[0] in ("hydra", "omegaconf"):
                yield source_module
            elif source_module.split(".")[0] == "refusal" and not is_free and folder not in left:
                yield f"{source_module}.{name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    assert list(offences(module, path.read_text(encoding="utf-8"))) == []


BAD = [
    "import hydra",
    "from omegaconf import X",
    "from refusal import sae",
    "from refusal.circuits.edges import X",
    "import refusal.report.page",
    "from refusal.config.options import X",
    "def f():\n from refusal import pipeline",
]


@pytest.mark.parametrize("line", BAD)
def test_the_law_is_enforced(line: str) -> None:
    good = "from refusal import InputError\nfrom refusal.models import X\nimport refusal.artifacts"
    assert list(offences("refusal.activations.store", line))
    assert not list(offences("refusal.activations.store", good))
    assert not list(offences("refusal.callbacks.steps", line))
