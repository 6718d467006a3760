"""From activations and autoencoders to circuits, their comparison, and the verdict: one study, in files.

1. Attribute the refusal score to features on the training prompts; choose each category's circuit.
2. Judge the circuits on held-out prompts.
3. Compare them: by the features they use, and by causal transfer, whose ``direct`` reading is the index.
4. Say ``monolithic``, ``modular``, ``mixed`` or ``inconclusive``, with the reason for any doubt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse

from refusal.activations.store import ActivationStore
from refusal.artifacts import clean_name, write_json
from refusal.circuits.agreement import agreement
from refusal.circuits.behaviour import behaviour
from refusal.circuits.circuit import Circuit, save_circuit
from refusal.circuits.discover import circuit_means, circuits_of
from refusal.circuits.evaluation import evaluate
from refusal.circuits.experiment import Experiment
from refusal.circuits.importances import Attribution, Importances, save_attribution
from refusal.comparison import overlap
from refusal.comparison.contrast import Contrast
from refusal.comparison.groups import core_and_tail, effective_circuits, group_categories
from refusal.comparison.knockout import KnockOuts
from refusal.comparison.readings import circuit_drops, direct_reading, number, reading, window_drops
from refusal.comparison.transfer import Direct, measure_direct, voting_layers
from refusal.comparison.verdict import decide
from refusal.models.chat import ChatModel
from refusal.models.sites import Site

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
Attribute = Callable[[Experiment], dict[Site, Importances]]


@dataclass(frozen=True)
class Settings:
    """How circuits are found and compared."""

    method: str
    """Name of the attribution method."""
    node_threshold: float
    edge_threshold: float
    top_n_per_layer: int | None
    separate_safe_toxic: bool
    positions: str
    baseline: str
    min_per_category: int
    permutations: int
    bootstrap: int
    seed: int
    batch_size: int = 128


@dataclass(frozen=True)
class Material:
    """What everything below works on: the prompts outside calibration, those of the training fold first."""

    chat: ChatModel
    tokens: Sequence[int]
    table: pd.DataFrame
    contrast: Contrast
    saes: Mapping[Site, Any]
    settings: Settings

    @property
    def voting(self) -> list[int]:
        """Categories with enough refused and complied prompts."""
        enough = np.minimum(self.contrast.count(refused=True), self.contrast.count(refused=False))
        return np.flatnonzero((enough >= self.settings.min_per_category) & self.contrast.measurable).tolist()

    def experiment(self, half: int, baseline: Any) -> Experiment:
        """Return the prompts of the training (0) or held-out (1) fold, ready for attribution."""
        rows = np.flatnonzero(self.contrast.half == half)
        return Experiment(
            chat=self.chat,
            encoded=[self.contrast.prompts[row] for row in rows],
            categories=[self.contrast.categories[int(self.contrast.category[row])] for row in rows],
            splits=self.table["split"].to_numpy()[rows].tolist(),
            refused=self.contrast.refused[rows],
            saes=self.saes,
            refusal_tokens=self.tokens,
            positions=self.settings.positions,
            baseline=baseline,
            batch_size=self.settings.batch_size,
        )

    def generator(self, purpose: int) -> np.random.Generator:
        """Return random numbers of their own for each purpose."""
        return np.random.default_rng([self.settings.seed, purpose])


@dataclass(frozen=True)
class Found:
    """Circuits, and what they were found with."""

    train: Experiment
    heldout: Experiment
    importances: Mapping[Site, Importances]
    """Of all prompts of the material."""
    circuits: Mapping[str, Circuit]
    """By category."""


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
    verdict = {**named, **_verdict(material, comparison, direct), **_score_quality(store), "seed": settings.seed}
    write_json(folder / "verdict.json", verdict)
    return verdict


def gather(chat: ChatModel, store: ActivationStore, saes: Mapping[Site, Any], settings: Settings) -> Material:
    """Return the prompts outside calibration with their labels and component writes, as arrays."""
    table = store.prompts()
    fold, category = table["fold"].to_numpy(), table["category"].to_numpy()
    usable = np.isin(category, category[fold == "train"])
    chosen = np.concatenate([np.flatnonzero(usable & (fold == name)) for name in ("train", "heldout")])
    writes = store.writes()[chosen]
    table = table.iloc[chosen].reset_index(drop=True)
    categories = sorted(set(category[chosen]))
    contrast = Contrast(
        categories=categories,
        prompts=[chat.encode(text) for text in table["text"]],
        category=np.searchsorted(categories, table["category"].to_numpy(dtype=str)),
        refused=table["refused"].to_numpy(dtype=bool),
        half=(table["fold"] == "heldout").to_numpy(dtype=int),
        score=table["refusal_score"].to_numpy(dtype=float),
        writes=writes,
    )
    return Material(chat, store.refusal_tokens, table, contrast, saes, settings)


def find_circuits(material: Material, attribute: Attribute, *, model: str, fingerprint: str) -> Found:
    """Attribute the score on all prompts, and choose each category's circuit on those of the training fold."""
    settings = material.settings
    train = material.experiment(0, settings.baseline)
    heldout = material.experiment(1, train.reference)
    of_train = attribute(train)
    circuits = circuits_of(
        train,
        of_train,
        model=model,
        method=settings.method,
        fingerprint=fingerprint,
        node_threshold=settings.node_threshold,
        edge_threshold=settings.edge_threshold,
        top_n_per_layer=settings.top_n_per_layer,
    )
    by_category = {category: circuit for (category, _), circuit in circuits.items()}
    return Found(train, heldout, _joined(of_train, attribute(heldout)), by_category)


def _joined(first: Mapping[Site, Importances], second: Mapping[Site, Importances]) -> dict[Site, Importances]:
    """Put the importances of two groups of prompts one after another."""
    joined = {}
    for site, one in first.items():
        values = sparse.csr_array(sparse.vstack([one.values, second[site].values], format="csr"))
        joined[site] = replace(one, values=values, error=np.concatenate([one.error, second[site].error]))
    return joined


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
    writing = [site for site in material.saes if site.is_write]
    features = {site: _last_features(found, site) for site in writing}
    directions = {site: _directions(material.saes[site]) for site in writing}
    by_circuit = circuit_drops(knock_outs, found.circuits, features, directions, direct.start)
    drops = {"circuit": by_circuit, "window": window_drops(knock_outs, direct.start)}
    voting, bootstrap = material.voting, material.settings.bootstrap
    readings: dict[str, Any] = {
        "direct": direct_reading(direct, voting, _effect(material), bootstrap=bootstrap, rng=material.generator(2))
    }
    for number_of_reading, (name, measured) in enumerate(drops.items()):
        rng = material.generator(3 + number_of_reading)
        readings[name] = reading(measured, voting, bootstrap=bootstrap, rng=rng) if measured else None
    return readings


def _last_features(found: Found, site: Site) -> np.ndarray:
    """Return f at the last position of all prompts, [n_prompts, d_sae]."""
    parts = [
        experiment.split(site, rows).f[:, -1].float().cpu().numpy()
        for experiment in (found.train, found.heldout)
        for rows in experiment.chunks()
    ]
    return np.concatenate(parts)


def _directions(sae: Any) -> np.ndarray:
    with torch.no_grad():
        return sae.directions.float().cpu().numpy()


def _effect(material: Material) -> float:
    """Return mean m of refused minus complied prompts over the voting categories, nats."""
    return float(material.contrast.effect()[material.voting].mean())


def _overlap(material: Material, found: Found, start: int) -> dict[str, Any]:
    """Return similarities by site, and of those together that the index is about, and the tests."""
    contrast, settings = material.contrast, material.settings
    rows = np.flatnonzero(contrast.refused)
    directions = {site: _directions(material.saes[site]) for site in found.train.sites}

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
    circuits = circuits_of(
        train,
        of_train,
        model=model,
        method=settings.method,
        fingerprint=fingerprint,
        node_threshold=settings.node_threshold,
        edge_threshold=settings.edge_threshold,
        top_n_per_layer=settings.top_n_per_layer,
        sides=("safe", "toxic"),
    )
    importances = _joined(of_train, attribute(heldout))
    directions = {site: _directions(material.saes[site]) for site in train.sites}
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


def _verdict(material: Material, comparison: Mapping[str, Any], direct: Direct | None) -> dict[str, Any]:
    """Return what ``verdict.json`` says of the comparison."""
    contrast, voting = material.contrast, material.voting
    readings, effect = comparison["transfer"], _effect(material) if voting else float("nan")
    own = float(direct.own[direct.start, voting].mean()) if direct else float("nan")
    headline = readings["direct"] or {"index": None, "low": None, "high": None, "start": None}
    verdict = decide(
        index=headline["index"],
        low=headline["low"],
        high=headline["high"],
        explained_share=own / effect if direct else 0.0,
        late_share=direct.late_share if direct else 0.0,
        n_voting=len(voting),
        prompts_per_category=int(contrast.count(refused=True)[voting].min()) if voting else 0,
    )
    return {
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "more_prompts": verdict.more_prompts,
        "index": headline["index"],
        "ci_low": headline["low"],
        "ci_high": headline["high"],
        "layer": headline["start"],
        "explained_share": number(own / effect),
        "late_share": number(direct.late_share) if direct else None,
        "controls": {
            "random_share": number(direct.random_drop / effect) if direct else None,
            "kl_complied": number(direct.divergence) if direct else None,
        },
        "readings": {
            name: {key: found[key] for key in ("index", "low", "high")} if found else None
            for name, found in readings.items()
        },
        **_structure(material, direct),
        "p": {name: test["p"] for name, test in comparison["tests"].items()},
        "n": comparison["counts"],
        "votes": comparison["voting"],
    }


def _structure(material: Material, direct: Direct | None) -> dict[str, Any]:
    """Return groups of categories, the effective number of circuits, and the shares that all or one of them use."""
    if direct is None:
        return {"groups": [], "effective_circuits": None, "core": None, "tail": None}
    voting = material.voting
    drops = direct.index_drops.matrix()[np.ix_(voting, voting)]
    own = np.diag(drops)
    transfer = drops / np.maximum(own, 0.25 * own.mean())[None, :] if own.mean() > 0 else np.eye(len(voting))
    names = [material.contrast.categories[c] for c in voting]
    core, tail = core_and_tail(drops) or (None, None)
    return {
        "groups": [[names[c] for c in group] for group in group_categories(transfer).members],
        "effective_circuits": effective_circuits(transfer),
        "core": core,
        "tail": tail,
    }


def _score_quality(store: ActivationStore) -> dict[str, Any]:
    return {"score_auc": store.manifest["score_auc"], "refusal_rate": store.manifest["refusal_rate"]}
