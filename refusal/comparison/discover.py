"""From activations and autoencoders to circuits, their comparison, and the verdict: one study, in files.

1. Attribute the refusal score to features on the training prompts; choose each category's circuit.
2. Judge the circuits on held-out prompts.
3. Compare them: by the features they use, and by causal transfer, whose ``direct`` reading is the index.
4. Say ``monolithic``, ``modular``, ``mixed`` or ``inconclusive``, with the reason for any doubt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refusal.activations.store import ActivationStore
from refusal.artifacts import clean_name, write_json
from refusal.circuits.agreement import agreement
from refusal.circuits.behaviour import behaviour
from refusal.circuits.circuit import SPLIT_SIDES, Circuit, save_circuit
from refusal.circuits.discover import Key, circuit_means
from refusal.circuits.evaluation import evaluate
from refusal.circuits.importances import Attribution, Importances
from refusal.comparison.conclusion import conclude
from refusal.comparison.findings import findings
from refusal.comparison.knockout import KnockOuts
from refusal.comparison.material import (
    Attribute,
    Found,
    Material,
    Settings,
    circuits_with,
    find_circuits,
    gather,
    joined,
)
from refusal.comparison.measured import Comparing, Measured, Transfer, save_measured
from refusal.comparison.readings import circuit_drops, window_drops
from refusal.comparison.transfer import measure_direct, voting_layers
from refusal.models.chat import ChatModel
from refusal.models.sites import Site

SCHEMA_VERSION = 1


def discover(
    chat: ChatModel,
    store: ActivationStore,
    saes: Mapping[Site, Any],
    folder: Path,
    *,
    model: str,
    data: str,
    fingerprint: str,
    settings: Settings,
    attribute: Attribute,
) -> dict[str, Any]:
    """Run the study; write circuits, what was measured (:mod:`refusal.comparison.measured`), comparison and verdict.

    Args:
        chat: The model.
        store: Its activations.
        saes: Autoencoders by site, on the model's device.
        folder: Where to write.
        model: Name of the model.
        data: Name of the prompts.
        fingerprint: Of the study.
        settings: How.
        attribute: The attribution method.

    Returns:
        The content of ``verdict.json``.
    """
    material = gather(chat, store, saes, settings)
    found = find_circuits(material, attribute, model=model, fingerprint=fingerprint)
    sides = _sides(material, found, attribute, model=model, fingerprint=fingerprint)
    circuits = [*found.circuits.values(), *(sides.circuits.values() if sides else ())]
    measured = _measure(material, found, sides)
    named = {"schema_version": SCHEMA_VERSION, "model": model, "data": data, "fingerprint": fingerprint}
    comparison = {
        **named,
        **_counts(material),
        **findings(measured, measured.how),
        "agreement": [
            {
                "site": line.site,
                "method": settings.method,
                "spearman": line.spearman,
                "sum": line.attributed,
                "total": line.measured,
            }
            for line in agreement(found.train, found.importances, rng=material.generator(1))
        ],
        "evaluation": _evaluate(found),
        "behaviour": _behaviour(material, found),
    }
    for circuit in circuits:
        save_circuit(folder, circuit)
    save_measured(folder, measured)
    write_json(folder / f"{clean_name(model)}_comparison.json", comparison)
    quality = {name: store.manifest[name] for name in ("score_auc", "refusal_rate")}
    direct = measured.transfer.direct if measured.transfer else None
    verdict = {**named, **conclude(material, comparison, direct), **quality, "seed": settings.seed}
    write_json(folder / "verdict.json", verdict)
    return verdict


@dataclass(frozen=True)
class _Sides:
    """Circuits of safe, hard and toxic prompts, against the baseline zero."""

    circuits: Mapping[Key, Circuit]
    importances: Mapping[Site, Importances]
    """Of all prompts of the material."""


def _sides(material: Material, found: Found, attribute: Attribute, *, model: str, fingerprint: str) -> _Sides | None:
    """Find each category's circuit on each side; None where they are not asked for."""
    if not material.settings.separate_safe_toxic:
        return None
    train, heldout = found.train.with_baseline("zero"), found.heldout.with_baseline("zero")
    of_train = attribute(train)
    circuits = circuits_with(
        material.settings, train, of_train, model=model, fingerprint=fingerprint, sides=SPLIT_SIDES
    )
    return _Sides(circuits, joined(of_train, attribute(heldout)))


def _measure(material: Material, found: Found, sides: _Sides | None) -> Measured:
    """Knock directions out, and put everything together that the comparison follows from."""
    settings, contrast = material.settings, material.contrast

    def attribution(importances: Mapping[Site, Importances], baseline: str) -> Attribution:
        ids = material.table["id"].tolist()
        return Attribution(dict(importances), ids, settings.method, baseline, settings.positions)

    return Measured(
        categories=list(contrast.categories),
        category=contrast.category,
        split=material.table["split"].to_numpy(dtype=str),
        refused=contrast.refused,
        effect=contrast.effect(),
        voting=material.voting,
        n_layers=contrast.n_layers,
        how=Comparing(settings.node_threshold, settings.permutations, settings.bootstrap, settings.seed),
        attribution=attribution(found.importances, settings.baseline),
        directions={site: material.directions(site) for site in found.train.sites},
        transfer=_transfer(material, found) if len(material.voting) > 1 else None,
        separate=attribution(sides.importances, "zero") if sides else None,
        with_circuit={
            side: np.array([sides.circuits[category, side].has_circuit for category in contrast.categories])
            for side in SPLIT_SIDES
        }
        if sides
        else {},
    )


def _transfer(material: Material, found: Found) -> Transfer:
    """Measure the three readings."""
    knock_outs = KnockOuts(material.chat, material.contrast, material.tokens, batch_size=material.settings.batch_size)
    direct = measure_direct(knock_outs, material.voting, seed=material.settings.seed)
    directions = {site: material.directions(site) for site in material.saes if site.is_write}
    circuit = circuit_drops(knock_outs, found.circuits, found.features, directions, direct.start)
    return Transfer(direct, knock_outs.rows, circuit, window_drops(knock_outs, direct.start))


def _evaluate(found: Found) -> list[dict[str, Any]]:
    circuits = [circuit for circuit in found.circuits.values() if circuit.has_circuit]
    means = [circuit_means(found.train, found.importances, circuit) for circuit in circuits]
    judged = evaluate(found.heldout, circuits, means)
    return [
        {
            "category": circuit.category,
            **judged[circuit.key].to_json(),
            "faithfulness_all_errors": judged[circuit.key].faithfulness_with_errors,
            "n_nodes": len(circuit.nodes),
            "n_edges": len(circuit.edges),
        }
        for circuit in circuits
    ]


def _behaviour(material: Material, found: Found) -> list[dict[str, Any]]:
    circuits = [circuit for circuit in found.circuits.values() if circuit.has_circuit]
    rng = material.generator(8)
    return [row.to_json() for row in behaviour(found.train, found.heldout, circuits, rng=rng)] if circuits else []


def _counts(material: Material) -> dict[str, Any]:
    contrast, table = material.contrast, material.table
    refused, complied = contrast.count(refused=True), contrast.count(refused=False)
    splits = table["split"].to_numpy()
    return {
        "categories": list(contrast.categories),
        "voting": [contrast.categories[c] for c in material.voting],
        "counts": {
            name: {"used": int(refused[c] + complied[c]), "refused": int(refused[c]), "complied": int(complied[c])}
            for c, name in enumerate(contrast.categories)
        },
        "refusal_by_split": {
            split: {"refused": int(contrast.refused[splits == split].sum()), "total": int((splits == split).sum())}
            for split in sorted(set(splits))
        },
        "n_layers": contrast.n_layers,
        "last_voting_layer": voting_layers(contrast.n_layers) - 1,
    }
