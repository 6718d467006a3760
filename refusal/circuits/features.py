"""What the nodes of the circuits are: where they are active, what they write towards, and what is near them.

``features.json`` stands beside the circuits (``schema_version`` 1). It describes the ``STRONGEST`` nodes of each
category's circuit (side ``all``; the SAE errors left out), at the last prompt position, where refusal is read:

- ``categories``; ``n_prompts``: the prompts of each that were ``refused`` and ``complied`` with (originals that count
  as evidence, of all folds).
- ``prompts``: those on which some feature is most active: ``id``, ``category``, ``split``, ``refused``, ``tokens``
  (texts, from the instruction on) and ``left_out`` (how many tokens of a long prompt are missing after the first
  ``HEAD``; 0 if none are).
- ``features``: ``site``, ``feature``; ``maximum`` of its activation (in the model's units); ``mean`` and ``share``: its
  mean and how often it is active, ``{"refused": [...], "complied": [...]}`` by category, null without prompts;
  ``raises`` and ``lowers``: [token, logit] of the ``N_TOKENS`` ends of the logit lens; ``neighbours``: [feature,
  cosine] of the nearest decoder rows of the same SAE; ``top``: for each of its top prompts ``prompt`` (index into
  ``prompts``) and ``activations``, [index into the tokens, activation] wherever it is active. These are the strongest
  prompts of different categories: whether a feature is shared is what is asked.

The file holds texts of prompts.
"""

from __future__ import annotations

from refusal.circuits.circuit import Circuit, Node

SCHEMA_VERSION = 1
FEATURES = "features.json"
STRONGEST = 120
"""Nodes of a circuit that are described, by |importance|."""
N_PROMPTS, N_TOKENS, N_NEIGHBOURS = 4, 10, 5
HEAD, TAIL = 40, 60
"""Tokens of a prompt that are kept at its beginning and its end."""


def strongest(circuit: Circuit) -> list[Node]:
    """Return the circuit's nodes that are described and drawn, the strongest first."""
    nodes = sorted(circuit.nodes, key=lambda node: -abs(node.importance))
    return nodes[:STRONGEST]
