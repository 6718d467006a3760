"""The parts that the studies of ``fixture`` are made of: a matrix, a site, a comparison, a verdict."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from refusal.circuits.circuit import Circuit

FINGERPRINT = "0123456789ab"
Rows = list[list[float | None]]
MEASURES = ("cosine", "weighted_jaccard", "node_jaccard", "subspace")


def grouped(labels: list[int], within: float, between: float, rng: np.random.Generator, noise: float) -> Rows:
    """A matrix with 1 on the diagonal, ``within`` inside a group and ``between`` outside, plus noise."""
    groups = np.array(labels)
    values = np.where(groups[:, None] == groups[None, :], within, between) + rng.normal(0, noise, (len(labels),) * 2)
    values = (values + values.T) / 2
    np.fill_diagonal(values, 1.0)
    return [[float(min(value, 1.0)) for value in row] for row in values]


def one_site(
    name: str, categories: list[str], rng: np.random.Generator, labels: list[int], noise: float = 0.02
) -> dict[str, Any]:
    within = 0.2 if name.startswith("attention") else 0.9
    measures = {}
    for measure in MEASURES:
        matrix = grouped(labels, within, 0.3, rng, noise)
        measures[measure] = {"matrix": matrix, "ceiling": [0.98] * len(categories), "corrected": matrix}
    return {"site": name, "votes": name == "mlp_2", "biased": name.startswith("residuals"), "measures": measures}


def whole_comparison(
    model: str,
    categories: list[str],
    voting: list[str],
    sites: list[dict[str, Any]],
    matrix: Rows,
    *,
    last: int,
    n_layers: int,
    start: int,
    own: float,
) -> dict[str, Any]:
    """A whole comparison; the callers then spoil parts of it."""
    mean = float(np.mean([value for row in matrix for value in row if value is not None and value != 1.0]))
    steps = []
    for layer in range(n_layers):
        early = layer < start
        index = 0.98 if early else min(mean + (0.4 if layer > last else 0.0), 1.0)
        drop = own if layer <= start else own * (0.03 if layer > last else 0.2)
        step: dict[str, Any] = {"start": layer, "index": index, "low": index - 0.04, "high": index + 0.03}
        drops = [[None if v is None else v * drop for v in row] for row in matrix]
        steps.append({**step, "own_drop": drop, "explained_share": drop / own * 0.96, "matrix": matrix, "drops": drops})
    direct = {"index": mean, "low": mean - 0.05, "high": mean + 0.05, "start": start, "matrix": matrix}
    direct |= {"drops": [[None if v is None else v * own for v in row] for row in matrix], "by_start": steps}
    evaluation = [
        {
            "category": name,
            "faithfulness": 0.93,
            "completeness": 0.04,
            "faithfulness_all_errors": 0.97,
            "cpr": 0.71,
            "cmd": 0.3,
            "n_nodes": 12,
            "n_edges": 30,
            "curve": [
                {"share": share, "n_nodes": n, "faithfulness": kept, "completeness": 1 - kept}
                for share, n, kept in ((0.001, 5, 0.1), (0.1, 460, 0.8), (1.0, 4617, 1.0))
            ],
        }
        for name in categories
    ]
    return {
        "schema_version": 1,
        "model": model,
        "data": "planted",
        "fingerprint": FINGERPRINT,
        "categories": categories,
        "voting": voting,
        "counts": {name: {"used": 60, "refused": 30, "complied": 30} for name in categories},
        "last_voting_layer": last,
        "n_layers": n_layers,
        "sites": sites,
        "combined": {"sites": [sites[0]["site"]], "measures": json.loads(json.dumps(sites[-1]["measures"]))},
        "transfer": {"direct": direct, "by_start": steps, "circuit": {**direct}, "window": {**direct}},
        "tests": {
            "distinguishable": {
                "statistic": 0.41,
                "p": 0.0001,
                "pairs": _pairs(categories),
                "pairs_adjusted": _pairs(categories),
            },
            "above_chance": {
                "statistic": 0.55,
                "p": 0.0002,
                "pairs": _pairs(categories),
                "pairs_adjusted": _pairs(categories),
            },
        },
        "separate": None,
        "agreement": [{"site": s["site"], "method": "atp", "spearman": 0.97, "sum": 8.7, "total": 9.0} for s in sites],
        "evaluation": evaluation,
        "behaviour": [row for name in categories for row in interventions(name)],
        "refusal_by_split": {
            "safe": {"refused": 3, "total": 200},
            "hard": {"refused": 62, "total": 200},
            "toxic": {"refused": 190, "total": 200},
        },
    }


def interventions(category: str) -> list[dict[str, Any]]:
    """What each intervention does to the prompts of one category."""
    found = {
        "refused": {
            "none": (1.0, 5.2, 0.0),
            "circuit removed": (0.0, -6.1, 4.8),
            "random features removed": (0.95, 5.0, 0.02),
            "neurons removed": (0.4, -0.3, 2.1),
            "errors removed": (0.8, 3.1, 0.3),
            "difference in means removed": (0.05, -5.8, 4.6),
        },
        "complied": {
            "none": (0.0, -6.4, 0.0),
            "circuit removed": (0.0, -6.5, 0.011),
            "random features removed": (0.0, -6.4, 0.0),
            "neurons removed": (0.0, -6.6, 0.04),
            "errors removed": (0.0, -6.2, 0.2),
            "difference in means removed": (0.0, -6.4, 0.03),
            "circuit switched on": (0.9, 4.9, 4.1),
        },
    }
    return [
        {
            "category": category,
            "side": "all",
            "intervention": intervention,
            "prompts": prompts,
            "n_prompts": 15,
            "refusal_rate": rate,
            "score": score,
            "kl": kl,
        }
        for prompts, done in found.items()
        for intervention, (rate, score, kl) in done.items()
    ]


def features_of(circuits: list[Circuit], tokens: list[str]) -> dict[str, Any]:
    """What ``features.json`` would say of the circuits' nodes, all most active on one prompt of these tokens."""
    categories = [circuit.category for circuit in circuits]
    by_group = {did: [value] * len(categories) for did, value in (("refused", 2.0), ("complied", 0.5))}
    nodes = sorted({(node.site, node.feature) for circuit in circuits for node in circuit.nodes if node.feature >= 0})
    prompt = {"id": "p0", "category": categories[0], "split": "toxic", "refused": True, "tokens": tokens}
    feature = {
        "maximum": 4.0,
        "mean": by_group,
        "share": {**by_group, "refused": [1.0] * (len(categories) - 1) + [None]},
        "raises": [[token, 1.5] for token in tokens[:4]],
        "lowers": [[token, -1.5] for token in tokens[-5:]],
        "neighbours": [[17, 0.9], [3, 0.2]],
        "top": [{"prompt": 0, "activations": [[0, 4.0], [len(tokens) - 1, 1.0]]}],
    }
    return {
        "schema_version": 1,
        "categories": categories,
        "n_prompts": {"refused": [30] * len(categories), "complied": [30] * len(categories)},
        "prompts": [{**prompt, "left_out": 0}],
        "features": [{"site": site, "feature": number, **feature} for site, number in nodes],
    }


def _pairs(categories: list[str]) -> Rows:
    return [
        [None if i == j else (0.001 if (i + j) % 3 else 0.4) for j in range(len(categories))]
        for i in range(len(categories))
    ]


def whole_verdict(
    comparison: dict[str, Any], verdict: str, reason: str, index: float, low: float, high: float
) -> dict[str, Any]:
    reading = {"index": index, "low": low, "high": high}
    return {
        "schema_version": 1,
        "verdict": verdict,
        "reason": reason,
        "index": index,
        "ci_low": low,
        "ci_high": high,
        "layer": comparison["transfer"]["direct"]["start"],
        "explained_share": 0.96,
        "late_share": 0.01,
        "core": 0.48,
        "tail": 0.47,
        "controls": {"random_share": 0.01, "kl_complied": 0.004},
        "readings": {"direct": reading, "circuit": {**reading}, "window": {**reading}},
        "groups": [comparison["categories"]],
        "effective_circuits": 1.3,
        "p": {"distinguishable": 0.0001, "above_chance": 0.0002},
        "score_auc": 0.999,
        "refusal_rate": {"safe": 0.0, "hard": 0.0, "toxic": 1.0},
        "n": comparison["counts"],
        "votes": comparison["voting"],
        "model": comparison["model"],
        "data": comparison["data"],
        "seed": 0,
        "fingerprint": FINGERPRINT,
        "more_prompts": None,
    }
