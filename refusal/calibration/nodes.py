"""Does a method of attribution find the planted nodes, and only these?

The features are the planted directions themselves, so that it is known which of them are the circuit: what detection
writes for a category where it is read, and the core and own part of its refusal. Every model gets a decoy, too: a
direction that is active exactly where a category is refused, and that nothing reads. Correlation must take it for a
node, causal methods must not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from refusal.calibration.family import Member
from refusal.calibration.planted import PlantedStudy
from refusal.circuits.attribution import atp, exact, ig, stats
from refusal.circuits.experiment import Experiment
from refusal.circuits.importances import Importances, mean_by_site
from refusal.circuits.select import choose_nodes, scaled
from refusal.models.planted import planted_directions
from refusal.models.planted_plan import group_numbers, own_shares
from refusal.models.sites import Site
from refusal.prompts.planted import make_vocabulary

CANDIDATES = 40  # of each site, for ``exact``
METHODS: dict[str, Callable[[Experiment], dict[Site, Importances]]] = {
    "stats": stats.attribute,
    "atp": atp.attribute,
    "ig": ig.attribute,
    "exact": partial(exact.attribute, candidates=CANDIDATES),
}
MAX_PROMPTS = 20  # refused ones a category: patching each feature on its own runs the model most often
NODE_THRESHOLD = 0.1
DECOY = 1.0


class WrittenFeatures:
    """The planted directions as an autoencoder: f = relu(x D'), x_hat = f D."""

    def __init__(self, directions: Tensor) -> None:
        self.directions = directions

    def encode(self, x: Tensor) -> Tensor:
        """Return f [..., n_features] of x [..., d_model]."""
        return (x @ self.directions.T).relu()

    def decode(self, f: Tensor) -> Tensor:
        """Return the reconstruction [..., d_model] of f [..., n_features]."""
        return f @ self.directions


def measure(member: Member) -> dict[str, Any]:
    """Return for each method the ROC area of the planted nodes, and the share of categories whose decoy it takes."""
    started = time.monotonic()
    member = replace(member, n=min(member.n, MAX_PROMPTS), plan=replace(member.plan, decoy=DECOY))
    study = member.study()
    names = planted_directions(make_vocabulary(member.words, member.categories), member.plan)
    dictionary = WrittenFeatures(torch.stack(list(names.values())))
    number_of = {name: i for i, name in enumerate(names)}
    planted = {
        category: {site: [number_of[name] for name in written] for site, written in by_site.items()}
        for category, by_site in planted_nodes(member).items()
    }
    experiment = _experiment(study, dictionary, [*planted[member.categories[0]]])
    found = {}
    for method, attribute in METHODS.items():
        importances = attribute(experiment)
        areas, decoys = [], []
        for category, nodes in planted.items():
            means = mean_by_site(importances, experiment.rows(category, refused=True))
            areas.append(_recovery(means, nodes))
            chosen = {node.feature for node in choose_nodes(means, threshold=NODE_THRESHOLD)}
            decoys.append(number_of[f"decoy {category}"] in chosen)
        found[method] = {"auc": float(np.mean(areas)), "worst_auc": min(areas), "decoy": float(np.mean(decoys))}
    return {"methods": found, "seconds": round(time.monotonic() - started, 2)}


def planted_nodes(member: Member) -> dict[str, dict[Site, list[str]]]:
    """Return the names of the directions that are the circuit of each category, by site."""
    plan, categories = member.plan, member.categories
    groups, own = group_numbers(plan, categories), own_shares(plan, categories)
    nodes: dict[str, dict[Site, list[str]]] = {}
    for category, group, share in zip(categories, groups, own, strict=True):
        written = ["shared"] * bool(share < 1) + [f"group {group}"] * bool(share > 0)
        detected = [] if plan.joint else [f"detected {category}"]
        nodes[category] = {Site("mlp", plan.decision_layer - 1): detected}
        nodes[category] |= {Site("mlp", layer): written for layer in plan.deciding}
    return nodes


def area_under_roc(strength: np.ndarray, is_node: np.ndarray) -> float:
    """Return how often a node is stronger than what is none, ties counting half (Mann-Whitney)."""
    n_nodes, n_others = int(is_node.sum()), int((~is_node).sum())
    ranks = rankdata(strength)
    return float((ranks[is_node].sum() - n_nodes * (n_nodes + 1) / 2) / (n_nodes * n_others))


def _recovery(means: Mapping[Site, np.ndarray], nodes: Mapping[Site, list[int]]) -> float:
    strength, is_node = [], []
    for site, relative in scaled(means).items():
        strength.append(np.abs(relative[:-1]))
        is_node.append(np.isin(np.arange(len(relative) - 1), nodes[site]))
    return area_under_roc(np.concatenate(strength), np.concatenate(is_node))


def _experiment(study: PlantedStudy, dictionary: WrittenFeatures, sites: list[Site]) -> Experiment:
    contrast = study.contrast
    return Experiment(
        chat=study.chat,
        encoded=contrast.prompts,
        categories=[contrast.categories[c] for c in contrast.category],
        refused=contrast.refused,
        saes=dict.fromkeys(sites, dictionary),
        refusal_tokens=study.knock_outs.tokens,
    )
