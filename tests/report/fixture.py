"""Studies on disk, made by code: the files that the pipeline would write, without a model.

``planted``: ten categories that share half of their mechanism in three groups, with safe and toxic circuits apart.
``noisy``: four categories with long or hostile names, few prompts, undefined values, an inconclusive verdict.
``one_site``: two categories, one site, a monolithic verdict. ``bare``: as ``noisy``, without circuits or SAEs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from refusal.circuits.circuit import Circuit, Node, save_circuit

HOSTILE = "<script>alert('x')</script> $a_b$ | `c` [d](http://evil.example)"
TEN = [
    "deception",
    "harassment",
    "harmful",
    "hate",
    "illegal",
    "privacy",
    "self-harm",
    "sexual",
    "unethical",
    "violence",
]
FOUR = ["weapons of the improvised kind, with very long names", HOSTILE, "fraud", "spam"]
FINGERPRINT = "0123456789ab"
Rows = list[list[float | None]]
MEASURES = ("cosine", "weighted_jaccard", "node_jaccard", "subspace")


def write_case(folder: Path, case: str) -> Path:
    """Write one study under ``folder`` and return the model's folder, as ``outputs/<model>`` would be."""
    rng = np.random.default_rng(0)
    make = {"planted": _planted, "noisy": _noisy, "one_site": _one_site, "bare": _bare}[case]
    verdict, comparison = make(rng)
    home = folder / comparison["model"]
    categories = comparison["categories"]
    _json(home / "report" / "verdict.json", verdict)
    _json(home / "data_analysis" / "data_split_statistics.json", _statistics(categories))
    study = home / "circuits" / FINGERPRINT
    _json(study / f"{comparison['model']}_comparison.json", comparison)
    _json(
        study / "card.json",
        {
            "fingerprint": FINGERPRINT,
            "saes": ["aaaabbbbcccc"],
            "versions": {"torch": "2.9.1", "refusal-circuits": "0.1.0"},
        },
    )
    if comparison["sites"]:
        _write_circuits(study, comparison, rng)
        for site in comparison["sites"]:
            _write_sae(home / "saes" / site["site"] / "topk-aaaabbbbcccc", rng)
    return home


def grouped(labels: list[int], within: float, between: float, rng: np.random.Generator, noise: float) -> Rows:
    """A matrix with 1 on the diagonal, ``within`` inside a group and ``between`` outside, plus noise."""
    groups = np.array(labels)
    values = np.where(groups[:, None] == groups[None, :], within, between) + rng.normal(0, noise, (len(labels),) * 2)
    values = (values + values.T) / 2
    np.fill_diagonal(values, 1.0)
    return [[float(min(value, 1.0)) for value in row] for row in values]


def _planted(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    labels = [0, 1, 0, 2, 1, 0, 2, 1, 0, 2]
    matrix = grouped(labels, 0.98, 0.42, rng, 0.02)
    sites = [
        _site(f"{kind}_{layer}", TEN, rng, labels) for layer in range(3) for kind in ("attention", "mlp", "residuals")
    ]
    comparison = _comparison("planted_m0.5", TEN, TEN, sites, matrix, last=4, n_layers=6, start=2, own=9.1)
    comparison["separate"] = {
        "within_safe": {"matrix": grouped(labels, 0.8, 0.7, rng, 0.05), "ceiling": [0.9] * 10, "p": 0.41},
        "within_toxic": {"matrix": grouped(labels, 0.95, 0.4, rng, 0.03), "ceiling": [0.97] * 9 + [None], "p": 0.0001},
        "cross": {"matrix": [[float(v) for v in row] for row in rng.uniform(0.0, 0.25, (10, 10))], "p": 0.62},
    }
    comparison["separate"]["cross"]["matrix"][9] = [None] * 10
    index = comparison["transfer"]["direct"]["index"]
    reason = "the whole interval lies between 0.3 and 0.7"
    verdict = _verdict(comparison, "mixed", reason, index, index - 0.05, index + 0.05)
    verdict["effective_circuits"] = 2.2
    verdict["groups"] = [[name for name, group in zip(TEN, labels, strict=True) if group == g] for g in range(3)]
    return verdict, comparison


def _noisy(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    matrix = grouped([0, 0, 1, 1], 0.7, 0.5, rng, 0.3)
    matrix[2] = [None, None, 1.0, None]
    for row in (0, 1, 3):
        matrix[row][2] = None
    matrix[0][1] = -0.21
    matrix[1][0] = 1.34
    sites = [_site(f"residuals_{layer}", FOUR, rng, [0, 0, 1, 1], 0.3) for layer in range(10, 22)]
    for site in sites:
        site["measures"]["cosine"]["matrix"][2] = [None] * 4
        site["measures"]["cosine"]["ceiling"][2] = None
    comparison = _comparison(
        "noisy", FOUR, [FOUR[0], FOUR[1], FOUR[3]], sites, matrix, last=23, n_layers=30, start=10, own=0.9
    )
    comparison["counts"] = {
        FOUR[0]: {"used": 61, "refused": 30, "complied": 31},
        FOUR[1]: {"used": 44, "refused": 22, "complied": 22},
        FOUR[2]: {"used": 40, "refused": 36, "complied": 4},
        FOUR[3]: {"used": 58, "refused": 24, "complied": 34},
    }
    for number, step in enumerate(comparison["transfer"]["by_start"]):
        wide = 0.25 + 0.03 * number
        step["index"] = float(0.62 + rng.normal(0, 0.12))
        step["low"], step["high"] = step["index"] - wide, step["index"] + wide
        step["own_drop"] = float(0.9 * max(0.05, 1 - number / 20))
    comparison["transfer"]["by_start"][10].update(index=0.58, low=0.21, high=0.94)
    comparison["transfer"]["by_start"][27].update(index=-2.6, low=-9.0, high=3.4)
    comparison["transfer"]["by_start"][28].update(index=None, low=None, high=None)
    comparison["transfer"]["window"] = None
    comparison["evaluation"][0].update(faithfulness=None, completeness=None)
    comparison["combined"]["measures"]["cosine"]["matrix"][2] = [None] * 4
    comparison["combined"]["measures"]["cosine"]["ceiling"] = [0.44, 0.38, None, 0.21]
    reason = "the interval reaches from modular to monolithic, and 3 of 4 categories have a vote"
    verdict = _verdict(comparison, "inconclusive", reason, 0.58, 0.21, 0.94)
    verdict.update(explained_share=0.29, score_auc=0.86, more_prompts=140, effective_circuits=2.1)
    verdict["readings"]["circuit"] = {"index": 0.12, "low": 0.02, "high": 0.2}
    verdict["refusal_rate"] = {"safe": 0.06, "hard": 0.31, "toxic": 0.83}
    verdict["p"] = {"distinguishable": 0.07, "above_chance": 0.0001}
    return verdict, comparison


def _one_site(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    two = ["hate", "violence"]
    matrix = grouped([0, 0], 0.99, 0.0, rng, 0.0)
    site = _site("mlp_2", two, rng, [0, 0])
    comparison = _comparison("one_site", two, two, [site], matrix, last=4, n_layers=6, start=2, own=9.0)
    return _verdict(comparison, "monolithic", "the whole interval is over 0.7", 0.99, 0.95, 1.0), comparison


def _bare(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    verdict, comparison = _noisy(rng)
    comparison.update(model="bare", sites=[], combined=None, separate=None, tests=None, agreement=[], evaluation=[])
    comparison["transfer"].update(circuit=None)
    comparison["transfer"]["direct"]["start"] = None
    for step in comparison["transfer"]["by_start"]:
        step.update(index=None, low=None, high=None)
    verdict["readings"].update(circuit=None, window=None)
    verdict.update(
        model="bare", p={"distinguishable": None, "above_chance": None}, index=None, ci_low=None, ci_high=None
    )
    verdict["readings"]["direct"] = {"index": None, "low": None, "high": None}
    return verdict, comparison


def _site(
    name: str, categories: list[str], rng: np.random.Generator, labels: list[int], noise: float = 0.02
) -> dict[str, Any]:
    within = 0.2 if name.startswith("attention") else 0.9
    measures = {}
    for measure in MEASURES:
        matrix = grouped(labels, within, 0.3, rng, noise)
        measures[measure] = {"matrix": matrix, "ceiling": [0.98] * len(categories), "corrected": matrix}
    return {"site": name, "votes": name == "mlp_2", "biased": name.startswith("residuals"), "measures": measures}


def _comparison(
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
        steps.append({**step, "own_drop": drop, "explained_share": drop / own * 0.96})
    direct = {"index": mean, "low": mean - 0.05, "high": mean + 0.05, "start": start, "matrix": matrix}
    direct |= {"drops": [[None if v is None else v * own for v in row] for row in matrix], "by_start": steps}
    evaluation = [
        {
            "category": name,
            "faithfulness": 0.93,
            "completeness": 0.04,
            "faithfulness_all_errors": 0.97,
            "n_nodes": 12,
            "n_edges": 30,
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
        "refusal_by_split": {
            "safe": {"refused": 3, "total": 200},
            "hard": {"refused": 62, "total": 200},
            "toxic": {"refused": 190, "total": 200},
        },
    }


def _pairs(categories: list[str]) -> Rows:
    return [
        [None if i == j else (0.001 if (i + j) % 3 else 0.4) for j in range(len(categories))]
        for i in range(len(categories))
    ]


def _verdict(
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


def _statistics(categories: list[str]) -> dict[str, Any]:
    counts = {name: {"safe": 40, "hard": 20, "toxic": 20, "all": 80, "toxic_share": 0.25} for name in categories}
    return {
        "schema_version": 1,
        "categories": counts,
        "total": counts[categories[0]],
        "warnings": [f"{categories[0]}: only 8 % of the prompts are toxic"],
    }


def _write_circuits(study: Path, comparison: dict[str, Any], rng: np.random.Generator) -> None:
    site = comparison["sites"][0]["site"]
    for category in comparison["categories"]:
        strengths = zip([-1, 17, 201], rng.uniform(0.1, 1.0, 3), strict=True)
        nodes = tuple(Node(site, feature, float(value), float(value)) for feature, value in strengths)
        circuit = Circuit(comparison["model"], category, "all", "atp", 30, True, 8.9, FINGERPRINT, {site: 1.0}, nodes)
        save_circuit(study, circuit)


def _write_sae(folder: Path, rng: np.random.Generator) -> None:
    _json(folder / "cfg.json", {"architecture": "refusal.sae.topk.TopK", "d_model": 128, "d_sae": 512, "k": 8})
    quality = {"n_rows": 900, "fvu": 0.14, "explained_variance": 0.87, "cosine": 0.93, "l0": 8.0, "dead_fraction": 0.02}
    heldout = {"all": quality, "last": {**quality, "n_rows": 90, "fvu": float(rng.uniform(0.05, 0.35))}}
    _json(folder / "history.json", {"schema_version": 1, "train": [], "heldout": heldout})


def _json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
