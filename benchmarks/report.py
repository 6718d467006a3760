"""Time the report of a large study: 10 categories, 32 layers, 3 sites each, from made-up files.

1. ``python -m refusal.report.build``, start of Python and figures included. Target: 20 s at most.
2. The page in headless Chromium, from the disk to the end of all drawing. Target: 3 s at most.
3. Its size. Target: under 15 MB.

    python benchmarks/report.py [--layers N] [--rounds N] [--keep FOLDER] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from refusal.circuits.circuit import Circuit, Edge, Node, save_circuit  # noqa: E402
from refusal.circuits.features import FEATURES, STRONGEST, strongest  # noqa: E402
from refusal.models.sites import KINDS  # noqa: E402
from tests.browser.chromium import CHROMIUM, Browser  # noqa: E402
from tests.report.fixture import TEN  # noqa: E402
from tests.report.parts import FINGERPRINT, features_of, grouped, one_site, whole_comparison, whole_verdict  # noqa: E402

TARGETS = {"build_seconds": 20.0, "open_seconds": 3.0, "megabytes": 15.0}
NODES, EDGES = 12, 20_000  # of a circuit: nodes at each site, edges in all
PROMPTS, TOKENS = 480, 60
LABELS = [0, 1, 0, 2, 1, 0, 2, 1, 0, 2]


def main() -> int:
    """Run the command; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder in which the study is left")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = write_study((options.keep or Path(temporary)) / "large", options.layers)
        builds = [build(home) for _ in range(options.rounds)]
        page = home / "report" / "report.html"
        found = {"build_seconds": statistics.median(builds), "megabytes": page.stat().st_size / 1e6}
        if CHROMIUM is not None:
            opened = [open_page(page, Path(temporary) / f"profile{i}") for i in range(options.rounds)]
            found["open_seconds"] = statistics.median(opened)
    for name, value in found.items():
        print(
            f"{name:15s} {value:6.1f}   target {TARGETS[name]:4.0f}   {'met' if value <= TARGETS[name] else 'missed'}"
        )
    if options.json is not None:
        options.json.write_text(json.dumps({"layers": options.layers, "sites": 3 * options.layers, **found}, indent=1))
    return int(any(value > TARGETS[name] for name, value in found.items()))


def write_study(home: Path, n_layers: int) -> Path:
    """Write what a discovery would leave, with all of its matrices, circuits, features and autoencoders."""
    rng = np.random.default_rng(0)
    names = [f"{kind}_{layer}" for layer in range(n_layers) for kind in KINDS]
    matrix = grouped(LABELS, 0.98, 0.42, rng, 0.02)
    sites = [one_site(name, TEN, rng, LABELS) for name in names]
    last = int(0.8 * n_layers)
    comparison = whole_comparison(
        "large", TEN, TEN, sites, matrix, last=last, n_layers=n_layers, start=last // 2, own=9.0
    )
    verdict = whole_verdict(comparison, "mixed", "the whole interval lies between 0.3 and 0.7", 0.55, 0.5, 0.6)
    study = home / "circuits" / FINGERPRINT
    write(home / "report" / "verdict.json", verdict)
    write(study / "large_comparison.json", comparison)
    write(study / "card.json", {"fingerprint": FINGERPRINT, "saes": dict.fromkeys(names, "topk-aaaabbbbcccc")})
    circuits = [circuit(category, names, rng) for category in TEN]
    for one in circuits:
        save_circuit(study, one)
    write(study / FEATURES, features(circuits, rng))
    quality = {"n_rows": 900, "fvu": 0.1, "cosine": 0.9, "l0": 32.0, "dead_fraction": 0.1, "dense_fraction": 0.0}
    for name in names:
        folder = home / "saes" / name / "topk-aaaabbbbcccc"
        write(folder / "cfg.json", {"architecture": "TopK", "d_model": 4096, "d_sae": 32768, "k": 32})
        write(folder / "history.json", {"heldout": {"all": quality, "last": quality}})
    return home


def circuit(category: str, names: Sequence[str], rng: np.random.Generator) -> Circuit:
    """A circuit with nodes at every site, and edges between sites at random."""
    numbers = [(name, int(n)) for name in names for n in [-1, *rng.choice(32768, NODES - 1, replace=False)]]
    values = rng.lognormal(0, 1.5, len(numbers)) * rng.choice([1, 1, 1, -1], len(numbers))
    nodes = tuple(Node(site, number, float(v), 1.0) for (site, number), v in zip(numbers, values, strict=True))
    pairs = np.sort(rng.choice(len(nodes), (EDGES, 2)))  # forward: nodes are in the order of computation
    weights = rng.lognormal(0, 1.5, EDGES) * rng.choice([1, 1, 1, -1], EDGES)
    edges = tuple(Edge(nodes[i].id, nodes[j].id, float(w), 1.0) for (i, j), w in zip(pairs, weights, strict=True))
    return Circuit("large", category, "all", "atp", 60, True, 9.0, FINGERPRINT, dict.fromkeys(names, 1.0), nodes, edges)


def features(circuits: Sequence[Circuit], rng: np.random.Generator) -> dict[str, Any]:
    """Pages of the strongest nodes: each circuit has its own, so that there are as many as there can be."""
    chosen = [Circuit(**{**vars(one), "nodes": tuple(strongest(one))}) for one in circuits]
    found = features_of(chosen, [f" word{i}" for i in range(TOKENS)])
    (prompt,) = found["prompts"]
    found["prompts"] = [{**prompt, "id": f"{i:016x}"} for i in range(PROMPTS)]
    for feature in found["features"]:
        active = [[int(i), round(float(v), 3)] for i, v in enumerate(rng.exponential(size=TOKENS)) if v > 1.5]
        feature["top"] = [{"prompt": int(i), "activations": active} for i in rng.choice(PROMPTS, 4, replace=False)]
        feature["raises"] = feature["lowers"] = [
            [f" token{i}", round(float(v), 3)] for i, v in enumerate(rng.normal(size=10))
        ]
        feature["neighbours"] = [[int(i), 0.5] for i in rng.choice(32768, 5)]
    assert len(found["features"]) > 0.8 * STRONGEST * len(circuits)
    return found


def build(home: Path) -> float:
    """Build the report as a command; return its seconds."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "refusal.report.build", str(home)], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - start


def open_page(page: Path, profile: Path) -> float:
    """Open the page in a browser that has just started; return the seconds until everything is drawn."""
    with Browser(profile) as browser:
        start = time.perf_counter()
        opened = browser.open(page)
        opened.settle()
        seconds = time.perf_counter() - start
        assert opened.run("document.querySelectorAll('.view > script').length") == 0
        assert opened.complaints == []
    return seconds


def write(path: Path, content: object) -> None:
    """Write a file of JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
