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
from refusal.circuits.circuit import Circuit, on_side, save_circuit
from refusal.circuits.discover import circuit_means
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
    directions_of,
    find_circuits,
    gather,
    joined,
)
from refusal.comparison.measured import Comparing, Measured, Side, Transfer, save_measured
from refusal.comparison.readings import circuit_drops
from refusal.comparison.transfer import measure_direct, measure_window, voting_layers
from refusal.models.chat import ChatModel
from refusal.models.sites import Site
from refusal.prompts.prompt import SPLITS

SCHEMA_VERSION = 1
Part = tuple[Sequence[str], Mapping[Site, Any]]
"""Sides (splits of the prompts) with the autoencoders that are for them, by site."""


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
    side_saes: Sequence[Part] = (),
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
        side_saes: Where circuits of sides are asked for, the autoencoders that they are found with; by default those
            of all prompts.

    Returns:
        The content of ``verdict.json``.
    """
    material = gather(chat, store, saes, settings)
    found = find_circuits(material, attribute, model=model, fingerprint=fingerprint)
    circuits, sides = list(found.circuits.values()), {}
    if settings.separate_safe_toxic:
        parts = side_saes or [(SPLITS, saes)]
        of_sides, sides = _find_sides(material, found, attribute, parts, model=model, fingerprint=fingerprint)
        circuits += of_sides
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
        "behaviour": _behaviour(material, found, store.manifest),
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


def _find_sides(
    material: Material, found: Found, attribute: Attribute, parts: Sequence[Part], *, model: str, fingerprint: str
) -> tuple[list[Circuit], dict[str, Side]]:
    """Find each category's circuits of safe, hard and toxic prompts, against the baseline zero."""
    contrast, split = material.contrast, material.table["split"].to_numpy(dtype=str)
    all_circuits, sides = [], {}
    for names, saes in parts:
        train, heldout = (half.with_baseline("zero", saes) for half in (found.train, found.heldout))
        of_train = attribute(train)
        circuits = circuits_with(material.settings, train, of_train, model=model, fingerprint=fingerprint, sides=names)
        importances = joined(of_train, attribute(heldout))
        directions = {site: directions_of(sae) for site, sae in saes.items()}
        for name in names:
            rows = np.flatnonzero(on_side(name, split, contrast.refused))
            sides[name] = Side(
                attribution=_attribution(material, importances, "zero", rows),
                rows=rows,
                directions=directions,
                has_circuit=np.array([circuits[category, name].has_circuit for category in contrast.categories]),
            )
        all_circuits += circuits.values()
    return all_circuits, {name: sides[name] for name in SPLITS}


def _measure(material: Material, found: Found, sides: Mapping[str, Side]) -> Measured:
    """Knock directions out, and put everything together that the comparison follows from."""
    settings, contrast = material.settings, material.contrast
    rows = np.arange(len(contrast.category))
    return Measured(
        categories=list(contrast.categories),
        category=contrast.category,
        refused=contrast.refused,
        effect=contrast.effect(),
        voting=material.voting,
        n_layers=contrast.n_layers,
        how=Comparing(settings.node_threshold, settings.permutations, settings.bootstrap, settings.seed),
        attribution=_attribution(material, found.importances, settings.baseline, rows),
        directions={site: directions_of(sae) for site, sae in material.saes.items()},
        transfer=_transfer(material, found) if len(material.voting) > 1 else None,
        sides=sides,
    )


def _attribution(
    material: Material, importances: Mapping[Site, Importances], baseline: str, rows: np.ndarray
) -> Attribution:
    """Return the importances on some prompts, with what they are."""
    ids = material.table["id"].to_numpy()[rows].tolist()
    chosen = {site: of_site.of(rows) for site, of_site in importances.items()}
    return Attribution(chosen, ids, material.settings.method, baseline, material.settings.positions)


def _transfer(material: Material, found: Found) -> Transfer:
    """Measure the three readings."""
    knock_outs = KnockOuts(material.chat, material.contrast, material.tokens, batch_size=material.settings.batch_size)
    direct = measure_direct(knock_outs, material.voting, seed=material.settings.seed)
    directions = {site: directions_of(sae) for site, sae in material.saes.items() if site.is_write}
    halves = knock_outs.by_halves()
    circuit = circuit_drops(halves, found.circuits, found.features, directions, direct.start)
    return Transfer(direct, knock_outs.rows, circuit, measure_window(halves, direct.start))


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


def _behaviour(material: Material, found: Found, recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Intervene; responses are judged as those of the study were."""
    circuits = [circuit for circuit in found.circuits.values() if circuit.has_circuit]
    judged = {"phrases": recipe["phrases"], "n_tokens": max(1, recipe["response_tokens"])}
    rows = behaviour(found.train, found.heldout, circuits, rng=material.generator(8), **judged) if circuits else []
    return [row.to_json() for row in rows]


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
