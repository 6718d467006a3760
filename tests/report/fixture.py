"""Studies on disk, made by code: the files that the pipeline would write, without a model.

``planted``: ten categories that share half of their mechanism in three groups, with safe and toxic circuits apart.
``noisy``: four categories with long or hostile names, few prompts, undefined values, an inconclusive verdict.
``one_site``: two categories, one site, a monolithic verdict. ``bare``: as ``noisy``, without circuits or SAEs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from refusal.activations.shard import dataset
from refusal.activations.store import MANIFEST
from refusal.artifacts import read_json
from refusal.circuits.circuit import Circuit, Edge, Node, save_circuit
from refusal.circuits.features import FEATURES
from refusal.report.build import build
from refusal.report.study import find
from tests.activations.conftest import write_store
from tests.report.parts import FINGERPRINT, features_of, grouped, one_site, whole_comparison, whole_verdict

CASES = ("planted", "noisy", "one_site", "bare")
HOSTILE = "<script>alert('x')</script> $a_b$ | `c` [d](http://evil.example)"
TOKENS = [
    "</script><script>document.title='run'</script>",
    "<img src=x onerror=document.title='run'>",
    "\"'`",
    "&lt;b&gt;",
    "\u202e txet desrever",
    "\u2066\u200f",
    "\0\a\x1b[31m",
    "\n\r\t",
    "\u2028",
    "x" * 10_000,
    "<!--",
    "]]>",
    "{{ 7 * 7 }}",
]
"""Tokens of a prompt that must stay text: markup, quotes, directions, controls, and one of great length."""
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
            "saes": {site["site"]: "topk-aaaabbbbcccc" for site in comparison["sites"]},
            "versions": {"torch": "2.9.1", "refusal-circuits": "0.1.0"},
            "content": case,
        },
    )
    if case == "noisy":
        write_activations(home / "activations" / "0123", content=case)
    if comparison["sites"]:
        _write_circuits(study, comparison, rng)
        for site in comparison["sites"]:
            _write_sae(home / "saes" / site["site"] / "topk-aaaabbbbcccc", rng)
    return home


def built_case(folder: Path, case: str) -> Path:
    """Write one study, build its report, and return the model's folder."""
    home = write_case(folder, case)
    found = find(home)
    build(found.report, found.circuits, data_analysis=found.data_analysis, saes=found.saes, store=found.store)
    return home


def write_activations(folder: Path, *, content: str, rule: str = "phrases", n_apart: int = 25) -> None:
    """Write a store of 40 safe and 40 toxic prompts, with hostile texts, whose two labels disagree on some.

    The first ``n_apart`` safe prompts are refusals by their score alone, the first toxic one by phrases alone.
    """
    folder.mkdir(parents=True)
    write_store(folder, [(HOSTILE, "safe", "train", 40, 2), ("fraud", "toxic", "train", 40, 2)])
    names = {"safe": "shard-0000.h5", "toxic": "shard-0001.h5"}
    with h5py.File(folder / names["safe"], "r+") as safe, h5py.File(folder / names["toxic"], "r+") as toxic:
        for i in range(n_apart):
            change(
                safe, i, by_score=True, refusal_score=0.5 + i, text=f"{HOSTILE} {i}", response=f"Sure | {HOSTILE}\n{i}"
            )
        if n_apart:
            change(toxic, 0, by_score=False, refusal_score=-99.0, text="long " * 200, response="")
    manifest = {**read_json(folder / MANIFEST), "content": content, "refused_by": rule, "agreement": 0.5}
    _json(folder / MANIFEST, manifest)


def change(shard: h5py.File, prompt: int, **columns: Any) -> None:
    """Put other values into the table of prompts."""
    for name, value in columns.items():
        dataset(shard, f"prompts/{name}")[prompt] = value


def _planted(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    labels = [0, 1, 0, 2, 1, 0, 2, 1, 0, 2]
    matrix = grouped(labels, 0.98, 0.42, rng, 0.02)
    sites = [
        one_site(f"{kind}_{layer}", TEN, rng, labels)
        for layer in range(3)
        for kind in ("attention", "mlp", "residuals")
    ]
    comparison = whole_comparison("planted_m0.5", TEN, TEN, sites, matrix, last=4, n_layers=6, start=2, own=9.1)
    comparison["separate"] = {
        "within_safe": {"matrix": grouped(labels, 0.8, 0.7, rng, 0.05), "ceiling": [0.9] * 10, "p": 0.41},
        "within_toxic": {"matrix": grouped(labels, 0.95, 0.4, rng, 0.03), "ceiling": [0.97] * 9 + [None], "p": 0.0001},
        "cross": {"matrix": [[float(v) for v in row] for row in rng.uniform(0.0, 0.25, (10, 10))], "p": 0.62},
        "over_refusal": {"matrix": grouped(labels, 0.9, 0.4, rng, 0.0), "p": 0.0002},
    }
    comparison["separate"]["cross"]["matrix"][9] = [None] * 10
    index = comparison["transfer"]["direct"]["index"]
    reason = "the whole interval lies between 0.3 and 0.7"
    verdict = whole_verdict(comparison, "mixed", reason, index, index - 0.05, index + 0.05)
    verdict["effective_circuits"], verdict["late_share"] = 2.2, 0.18
    verdict["groups"] = [[name for name, group in zip(TEN, labels, strict=True) if group == g] for g in range(3)]
    return verdict, comparison


def _noisy(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    matrix = grouped([0, 0, 1, 1], 0.7, 0.5, rng, 0.3)
    matrix[2] = [None, None, 1.0, None]
    for row in (0, 1, 3):
        matrix[row][2] = None
    matrix[0][1] = -0.21
    matrix[1][0] = 1.34
    sites = [one_site(f"residuals_{layer}", FOUR, rng, [0, 0, 1, 1], 0.3) for layer in range(10, 22)]
    for site in sites:
        site["measures"]["cosine"]["matrix"][2] = [None] * 4
        site["measures"]["cosine"]["ceiling"][2] = None
    comparison = whole_comparison(
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
    verdict = whole_verdict(comparison, "inconclusive", reason, 0.58, 0.21, 0.94)
    verdict.update(explained_share=0.29, score_auc=0.86, more_prompts=140, effective_circuits=2.1)
    verdict["readings"]["circuit"] = {"index": 0.12, "low": 0.02, "high": 0.2}
    verdict["refusal_rate"] = {"safe": 0.06, "hard": 0.31, "toxic": 0.83}
    verdict["p"] = {"distinguishable": 0.07, "above_chance": 0.0001}
    return verdict, comparison


def _one_site(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    two = ["hate", "violence"]
    matrix = grouped([0, 0], 0.99, 0.0, rng, 0.0)
    site = one_site("mlp_2", two, rng, [0, 0])
    comparison = whole_comparison("one_site", two, two, [site], matrix, last=4, n_layers=6, start=2, own=9.0)
    return whole_verdict(comparison, "monolithic", "the whole interval is over 0.7", 0.99, 0.95, 1.0), comparison


def _bare(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    verdict, comparison = _noisy(rng)
    comparison.update(
        model="bare", sites=[], combined=None, separate=None, tests=None, agreement=[], evaluation=[], behaviour=[]
    )
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


def _statistics(categories: list[str]) -> dict[str, Any]:
    counts = {name: {"safe": 40, "hard": 20, "toxic": 20, "all": 80, "toxic_share": 0.25} for name in categories}
    return {
        "schema_version": 1,
        "categories": counts,
        "total": counts[categories[0]],
        "warnings": [f"{categories[0]}: only 8 % of the prompts are toxic"],
    }


def _write_circuits(study: Path, comparison: dict[str, Any], rng: np.random.Generator) -> None:
    """A chain through the sites, with an error node and one that prevents refusal; all but ``one_site`` described."""
    sites = [site["site"] for site in comparison["sites"]][:4]
    circuits = []
    for category in comparison["categories"]:
        nodes = tuple(
            Node(site, feature, float(sign * value), float(sign * value))
            for site in sites
            for feature, sign, value in zip([-1, 17, 201], (1, 1, -1), rng.uniform(0.1, 1.0, 3), strict=True)
        )
        pairs = [(up, down) for up in nodes for down in nodes if sites.index(up.site) + 1 == sites.index(down.site)]
        weights = rng.uniform(-1, 1, len(pairs)).tolist()
        edges = tuple(Edge(up.id, down.id, w, w) for (up, down), w in zip(pairs, weights, strict=True))
        scales = dict.fromkeys(sites, 1.0)
        name = comparison["model"]
        circuits.append(Circuit(name, category, "all", "atp", 30, True, 8.9, FINGERPRINT, scales, nodes, edges))
        save_circuit(study, circuits[-1])
    if comparison["model"] != "one_site":
        tokens = TOKENS if comparison["model"] == "noisy" else ["Tell", " me", " how", "?"]
        _json(study / FEATURES, features_of(circuits, tokens))


def _write_sae(folder: Path, rng: np.random.Generator) -> None:
    _json(
        folder / "cfg.json",
        {"architecture": "refusal.sae.architectures.topk.TopK", "d_model": 128, "d_sae": 512, "k": 8},
    )
    quality = {"n_rows": 900, "fvu": 0.14, "explained_variance": 0.87, "cosine": 0.93, "l0": 8.0, "dead_fraction": 0.02}
    heldout = {"all": quality, "last": {**quality, "n_rows": 90, "fvu": float(rng.uniform(0.05, 0.35))}}
    _json(folder / "history.json", {"schema_version": 1, "train": [], "heldout": heldout})


def _json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
