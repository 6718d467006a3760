"""The calibration as a page of Markdown: figures against their targets, verdicts, and where errors come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from refusal.calibration.figures import CAUSAL, TARGETS, VERDICTS, by, missed
from refusal.sweeps.table import markdown

METHODS = ("stats", *CAUSAL)
NAMES = {
    "right_if_clear": "verdict right where the truth is clear (inconclusive is not right)",
    "confidently_wrong": "models with a wrong verdict",
    "mean_error": "mean of abs(index - truth)",
    "largest_error": "largest abs(index - truth)",
    "coverage": "intervals that cover the truth",
    "mean_width": "mean width of the intervals",
    "false_positives_distinguishable": "true nulls rejected, test of distinguishable categories",
    "false_positives_above_chance": "true nulls rejected, test of overlap above chance",
    "auc_stats": "ROC area of the planted nodes, stats",
    "decoy_stats": "decoys taken for nodes, stats",
    **{f"auc_{method}": f"ROC area of the planted nodes, {method}" for method in CAUSAL},
    **{f"decoy_{method}": f"decoys taken for nodes, {method}" for method in CAUSAL},
    **{f"circuit_error_{method}": f"mean of abs(reading circuit - truth), {method}" for method in METHODS},
    **{f"largest_circuit_error_{method}": f"largest abs(reading circuit - truth), {method}" for method in METHODS},
    **{f"faithfulness_{method}": f"faithfulness of circuits, {method}" for method in METHODS},
}


def write_page(found: Mapping[str, Any], command: str) -> str:
    """Return the page.

    Args:
        found: What ``calibration.json`` holds.
        command: What made it.
    """
    figures, rows = found["figures"], found["models"]
    off = missed(figures)
    parts = [
        f"{figures['models']} planted models (seed {found['seed']}), {figures['clear']} with a clear truth; "
        f"circuits on {len(found['nodes'])}. Made by\n\n    {command}\n",
        _figures_table(figures, off),
        "Verdicts (rows: the right one; columns: the one found)\n",
        markdown([{"": right, **found["confusion"][right]} for right in VERDICTS[:3]]),
        "By kind of model\n",
        markdown(by(rows, "kind", lambda row: row["kind"])),
        "By number of refused prompts a category\n",
        markdown(by(rows, "prompts", lambda row: row["n"])),
        "By length of what is written at random from prompt to prompt (a refusal has 0.7 to 1)\n",
        markdown(by(rows, "chatter", lambda row: row["plan"]["chatter"])),
    ]
    return "\n".join(parts)


def _figures_table(figures: Mapping[str, Any], off: Sequence[str]) -> str:
    lines = []
    for name, label in NAMES.items():
        if figures.get(name) is None:
            continue
        low, high = TARGETS.get(name, (None, None))
        if low is None:
            target, met = "-", "-"
        else:
            target = f"{low:g}" if low == high else f"{low:g} to {high:g}"
            met = "no" if name in off else "yes"
        lines.append({"figure": label, "found": f"{figures[name]:.3g}", "target": target, "met": met})
    return markdown(lines)
