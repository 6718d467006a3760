"""A circuit: the features that make the model refuse one category, joined by what each does to the next.

As JSON (``schema_version`` 1): ``model``, ``category``, ``side`` (``all``, ``safe``, ``hard``, ``toxic``), ``method``,
``n_prompts`` (prompts averaged over), ``has_circuit`` (false: the effect is too small to have one, nothing is
scaled), ``effect`` (nats: the strongest site's mean attributed effect), ``fingerprint`` (of the configuration),
``scales`` (site: the largest |mean importance| of one of its features), ``nodes`` and ``edges``. A node has
``site``, ``feature`` (-1 is the SAE error), ``importance`` (mean over the prompts, nats) and ``scaled`` (divided by
the site's scale). An edge has ``up`` and ``down``, each a node's id ``<site>/<feature>``, ``weight`` (nats, signed) and
``scaled`` (divided by the strongest edge between features of the two sites).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from refusal import InputError
from refusal.artifacts import clean_name, read_json, write_json

SCHEMA_VERSION = 1
ERROR = -1
"""The feature number of the error node."""


@dataclass(frozen=True)
class Node:
    """A feature of a site, or (``ERROR``) what the site's SAE does not reconstruct."""

    site: str
    feature: int
    importance: float
    scaled: float

    @property
    def id(self) -> str:
        """``<site>/<feature>``; the name that edges use."""
        return f"{self.site}/{self.feature}"


@dataclass(frozen=True)
class Edge:
    """What an upstream node contributes to the score through a downstream node, directly."""

    up: str
    down: str
    weight: float
    scaled: float


@dataclass(frozen=True)
class Circuit:
    """One category's circuit; see the module for the fields."""

    model: str
    category: str
    side: str
    method: str
    n_prompts: int
    has_circuit: bool
    effect: float
    fingerprint: str
    scales: dict[str, float] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """(category, side)."""
        return self.category, self.side

    def features(self, site: str) -> list[int]:
        """Return the numbers of the site's features in the circuit (the error node left out)."""
        return [node.feature for node in self.nodes if node.site == site and node.feature != ERROR]

    def has_error(self, site: str) -> bool:
        """Whether the site's error node is in the circuit."""
        return any(node.site == site and node.feature == ERROR for node in self.nodes)

    def to_json(self) -> dict[str, Any]:
        """Return the content of the circuit's file."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Circuit:
        """Return the circuit that ``to_json`` described.

        Raises:
            ValueError: It was written by another version.
            KeyError, TypeError: A field is missing or of the wrong kind.
        """
        if content["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema_version {content['schema_version']} is not {SCHEMA_VERSION}")
        fields = {name: value for name, value in content.items() if name != "schema_version"}
        fields["nodes"] = tuple(Node(**node) for node in content["nodes"])
        fields["edges"] = tuple(Edge(**edge) for edge in content["edges"])
        return cls(**fields)


def on_side(side: str, split: np.ndarray, refused: np.ndarray) -> np.ndarray:
    """Return which prompts a side's circuits are about, bool [n_prompts].

    ``all``: the refused ones; ``safe`` and ``toxic``: those of the split; ``hard``: those of it that were refused, so
    that it is the side of over-refusal.

    Args:
        side: Which.
        split: Split of each prompt, str [n_prompts].
        refused: Whether the model refused it, bool [n_prompts].
    """
    if side == "all":
        return refused
    return (split == side) & (refused if side == "hard" else True)


def circuit_filename(model: str, category: str, side: str = "all") -> str:
    """Return the name of a circuit's file, such as ``llama2_7b_hate_safe_circuit.json``."""
    part = "" if side == "all" else f"_{side}"
    return f"{clean_name(model)}_{clean_name(category)}{part}_circuit.json"


def save_circuit(folder: Path, circuit: Circuit) -> Path:
    """Write the circuit's file into the folder and return its path.

    Raises:
        InputError: The disk refuses to write.
    """
    path = Path(folder) / circuit_filename(circuit.model, circuit.category, circuit.side)
    write_json(path, circuit.to_json())
    return path


def load_circuit(path: Path) -> Circuit:
    """Read a circuit's file.

    Raises:
        InputError: The file is absent, or is not a circuit of this version.
    """
    content = read_json(path)
    try:
        return Circuit.from_json(content)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a circuit that this version reads ({error}); rebuild it") from error
