"""From activations and autoencoders to circuits, their comparison, and the verdict: one study, in files.

1. Attribute the refusal score to features on the training prompts; choose each category's circuit.
2. Judge the circuits on held-out prompts.
3. Compare them: by the features they use, and by causal transfer, whose ``direct`` reading is the index.
4. Say ``monolithic``, ``modular``, ``mixed`` or ``inconclusive``, with the reason for any doubt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from refusal.activations.store import ActivationStore
from refusal.artifacts import clean_name, write_json
from refusal.circuits.agreement import agreement
from refusal.circuits.behaviour import behaviour
from refusal.circuits.circuit import Circuit, save_circuit
from refusal.circuits.discover import circuit_means
from refusal.circuits.evaluation import evaluate
from refusal.circuits.importances import Attribution, save_attribution
from refusal.comparison import overlap
from refusal.comparison.conclusion import conclude
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
from refusal.comparison.readings import circuit_drops, direct_reading, reading, window_drops
from refusal.comparison.transfer import Direct, measure_direct, voting_layers
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
    """Run the study; write circuits, ``{model}_comparison.json``, ``attribution.h5`` and ``verdict.json``.

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
    evaluations = _evaluate(found)
    knock_outs = KnockOuts(chat, material.contrast, material.tokens, batch_size=settings.batch_size)
    direct = measure_direct(knock_outs, material.voting, seed=settings.seed) if len(material.voting) > 1 else None
    named = {"schema_version": SCHEMA_VERSION, "model": model, "data": data, "fingerprint": fingerprint}
    comparison = {
        **named,
        **_counts(material),
        "transfer": _transfer(material, found, knock_outs, direct),
        **_overlap(material, found, direct.start if direct else 0),
        "separate": None,
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
        "evaluation": evaluations,
        "behaviour": _behaviour(material, found),
    }
    if settings.separate_safe_toxic:
        pairs, comparison["separate"] = _separate(material, found, attribute, model=model, fingerprint=fingerprint)
        for circuit in pairs:
            save_circuit(folder, circuit)
    for circuit in found.circuits.values():
        save_circuit(folder, circuit)
    attribution = Attribution(
        dict(found.importances), material.table["id"].tolist(), settings.method, settings.baseline, settings.positions
    )
    save_attribution(folder / "attribution.h5", attribution)
    write_json(folder / f"{clean_name(model)}_comparison.json", comparison)
    quality = {name: store.manifest[name] for name in ("score_auc", "refusal_rate")}
    verdict = {**named, **conclude(material, comparison, direct), **quality, "seed": settings.seed}
    write_json(folder / "verdict.json", verdict)
    return verdict


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


def _transfer(material: Material, found: Found, knock_outs: KnockOuts, direct: Direct | None) -> dict[str, Any]:
    """Return the three readings; None where one cannot be measured."""
    if direct is None:
        return {"direct": None, "circuit": None, "window": None}
    directions = {site: material.directions(site) for site in material.saes if site.is_write}
    by_circuit = circuit_drops(knock_outs, found.circuits, found.features, directions, direct.start)
    drops = {"circuit": by_circuit, "window": window_drops(knock_outs, direct.start)}
    voting, bootstrap = material.voting, material.settings.bootstrap
    readings: dict[str, Any] = {
        "direct": direct_reading(direct, voting, material.effect, bootstrap=bootstrap, rng=material.generator(2))
    }
    for number_of_reading, (name, measured) in enumerate(drops.items()):
        rng = material.generator(3 + number_of_reading)
        readings[name] = reading(measured, voting, bootstrap=bootstrap, rng=rng) if measured else None
    return readings


def _overlap(material: Material, found: Found, start: int) -> dict[str, Any]:
    """Return similarities by site, and of those together that the index is about, and the tests."""
    contrast, settings = material.contrast, material.settings
    rows = np.flatnonzero(contrast.refused)
    directions = {site: material.directions(site) for site in found.train.sites}

    def features(sites: Sequence[Site]) -> overlap.Features:
        n_categories = len(contrast.categories)
        return overlap.join(found.importances, directions, sites, rows, contrast.category[rows], n_categories)

    rng = material.generator(5)
    stop = voting_layers(contrast.n_layers)
    by_site = [
        {
            "site": str(site),
            "votes": site.is_write and site.layer < stop,
            "biased": not site.is_write,
            "measures": overlap.similarities(features([site]), threshold=settings.node_threshold, rng=rng),
        }
        for site in found.train.sites
    ]
    together = _compared_together(found.train.sites, start, stop)
    return {
        "sites": by_site,
        "combined": {
            "sites": [str(site) for site in together],
            "measures": overlap.similarities(features(together), threshold=settings.node_threshold, rng=rng),
        },
        "tests": overlap.tests(
            features(_compared_together(found.train.sites, 0, stop)), n=settings.permutations, rng=material.generator(6)
        ),
    }


def _compared_together(sites: Sequence[Site], start: int, stop: int) -> list[Site]:
    """Return the component writes of blocks start .. stop - 1; without any, all sites that are there."""
    return [site for site in sites if site.is_write and start <= site.layer < stop] or list(sites)


def _separate(
    material: Material, found: Found, attribute: Attribute, *, model: str, fingerprint: str
) -> tuple[list[Circuit], dict[str, Any]]:
    """Return the safe and toxic circuits of each category, against the baseline zero, and their comparison."""
    settings, contrast = material.settings, material.contrast
    train, heldout = found.train.with_baseline("zero"), found.heldout.with_baseline("zero")
    of_train = attribute(train)
    circuits = circuits_with(settings, train, of_train, model=model, fingerprint=fingerprint, sides=("safe", "toxic"))
    importances = joined(of_train, attribute(heldout))
    directions = {site: material.directions(site) for site in train.sites}
    together = _compared_together(train.sites, 0, voting_layers(contrast.n_layers))
    sides = {}
    for side in ("safe", "toxic"):
        has_circuit = np.array([circuits[category, side].has_circuit for category in contrast.categories])
        in_split = (material.table["split"] == side).to_numpy(dtype=bool)
        rows = np.flatnonzero(in_split & has_circuit[contrast.category])
        category = contrast.category[rows]
        sides[side] = overlap.join(importances, directions, together, rows, category, len(contrast.categories))
    compared = overlap.separate(sides["safe"], sides["toxic"], n=settings.permutations, rng=material.generator(7))
    return list(circuits.values()), compared
