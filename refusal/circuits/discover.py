"""From importances to circuits: average by category, choose nodes, join them by edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from refusal.circuits.circuit import Circuit
from refusal.circuits.edges import prompts_of, with_edges
from refusal.circuits.experiment import Experiment
from refusal.circuits.importances import Importances, mean_by_site
from refusal.circuits.select import choose_nodes, scales
from refusal.models.sites import Site
from refusal.prompts.prompt import SPLITS

MIN_SIDE_EFFECT = 0.05
"""A side whose effect is under this share of the toxic side's has no circuit."""

Key = tuple[str, str]
"""(category, side)."""


def circuits_of(
    experiment: Experiment,
    importances: Mapping[Site, Importances],
    *,
    model: str,
    method: str,
    fingerprint: str,
    node_threshold: float,
    edge_threshold: float,
    top_n_per_layer: int | None = None,
    sides: Sequence[str] = ("all",),
) -> dict[Key, Circuit]:
    """Return a circuit for each category and side, those without prompts or effect with ``has_circuit`` false.

    Side ``all`` averages over the category's refused prompts. ``toxic``, ``safe`` and ``hard`` belong together (see
    :func:`refusal.circuits.circuit.on_side`), and need the baseline ``zero``: against the mean of the complied prompts,
    the safe side is zero by construction.

    Args:
        experiment: The prompts of the training fold.
        importances: What a method gave for them.
        model: Name under which the model's results are kept.
        method: Name of the method.
        fingerprint: Of the configuration.
        node_threshold: Share of the site's strongest feature that makes a node.
        edge_threshold: Share of the strongest edge between two sites that makes an edge.
        top_n_per_layer: At most this many nodes a site.
        sides: ``("all",)`` or some of ``SPLITS``.
    """
    if set(sides) & set(SPLITS) and experiment.reference.kind != "zero":
        raise ValueError("separate circuits need the baseline zero")
    circuits = []
    for category in sorted(set(experiment.categories)):
        for side in sides:
            empty = Circuit(model, category, side, method, 0, False, 0.0, fingerprint)
            circuits.append(
                _with_nodes(experiment, importances, empty, threshold=node_threshold, top_n_per_layer=top_n_per_layer)
            )
    return {circuit.key: circuit for circuit in with_edges(experiment, circuits, threshold=edge_threshold)}


def circuit_means(
    experiment: Experiment, importances: Mapping[Site, Importances], circuit: Circuit
) -> dict[Site, np.ndarray]:
    """Return the means [d_sae + 1] by site that a circuit's nodes are chosen by; zeros where it has no prompt."""
    rows = prompts_of(experiment, circuit)
    if not len(rows):
        return {site: np.zeros(of_site.d_sae + 1) for site, of_site in importances.items()}
    return mean_by_site(importances, rows)


def effect(means: Mapping[Site, np.ndarray]) -> float:
    """Return the strongest site's |mean effect|, features and error together (sites are never summed)."""
    return max(abs(float(mean.sum())) for mean in means.values())


def _with_nodes(
    experiment: Experiment,
    importances: Mapping[Site, Importances],
    empty: Circuit,
    *,
    threshold: float,
    top_n_per_layer: int | None,
) -> Circuit:
    means = circuit_means(experiment, importances, empty)
    strength = effect(means)
    circuit = replace(empty, n_prompts=len(prompts_of(experiment, empty)), effect=strength)
    if empty.side in ("safe", "hard"):
        toxic = effect(circuit_means(experiment, importances, replace(empty, side="toxic")))
        if strength < MIN_SIDE_EFFECT * toxic:
            return circuit
    nodes = tuple(choose_nodes(means, threshold=threshold, top_n_per_layer=top_n_per_layer))
    by_site = {str(site): scale for site, scale in scales(means).items()}
    return replace(circuit, has_circuit=bool(nodes), scales=by_site if nodes else {}, nodes=nodes)
