"""The heatmaps that can be explored on the page: every matrix that a study has, by measure, site, reading.

Each view is one matrix at a time, chosen by its keys; see ``static/heatmap.js`` for what it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from refusal.report.blocks import View
from refusal.report.matrices import cluster_order, read_matrix, study_order
from refusal.report.panels import NO_CIRCUIT
from refusal.report.sites import in_words
from refusal.report.study import Study
from refusal.style import UNDEFINED, colour_of

MEASURES = {
    "cosine": "Cosine of importances",
    "net_direction": "Cosine of net directions",
    "node_jaccard": "Jaccard of nodes",
    "weighted_jaccard": "Weighted Jaccard",
    "subspace": "Overlap of subspaces",
}
READINGS = {"direct": "Directions (the index)", "circuit": "Net writes of circuits", "window": "Window of layers"}
SIDES = {
    "cross": ("Safe against toxic", "circuit of safe prompts"),
    "over_refusal": ("Hard, refused, against toxic", "circuit of hard prompts"),
}
TESTS = {"distinguishable": "told apart, p", "above_chance": "overlap above chance, p"}
STEPS = [step / 10 for step in range(11)]
DIGITS = 4  # significant ones that go to the page


def similarity_view(study: Study, png: str) -> View | None:
    """Return how alike the circuits are, by measure and site; None in a study without circuits."""
    comparison = study.comparison
    combined, pages = comparison.get("combined") or {}, []
    found = [("all compared", in_words(combined.get("sites") or []), combined)] if combined else []
    found += [(site["site"], "biased towards modular" if site["biased"] else "", site) for site in comparison["sites"]]
    for name in dict.fromkeys(name for _, _, of_site in found for name in of_site["measures"]):
        for where, caption, of_site in found:
            measure = of_site["measures"].get(name)
            for key, shown in (("matrix", "as measured"), ("corrected", "over the ceiling")):
                page = _page(study, measure, [MEASURES.get(name, str(name)), where, shown], key, _p_values(study))
                pages += [{**page, "caption": caption, "unit": "similarity"}] if page else []
    return _view(study, "Circuits: how alike", ["Measure", "Sites", "Values"], pages, png) if pages else None


def transfer_view(study: Study, png: str) -> View | None:
    """Return causal transfer, by reading, as shares and in nats; None where it was not measured."""
    transfer, pages = study.comparison.get("transfer") or {}, []
    for name, title in READINGS.items():
        reading = transfer.get(name) or {}
        start = "" if reading.get("start") is None else f"knock-out from layer {reading['start']} on"
        for key, shown, unit in (("matrix", "share of own fall", "share"), ("drops", "fall, nats", "fall (nats)")):
            page = _page(study, reading, [title, shown], key)
            pages += [{**page, "caption": start, "unit": unit}] if page else []
    axes = {"across": "refusal tested on", "down": "knocked out"}
    return _view(study, "Causal transfer", ["Reading", "Values"], pages, png, **axes) if pages else None


def within_view(study: Study, png: str) -> View | None:
    """Return how alike the circuits of one side are."""
    separate, pages = study.comparison["separate"], []
    for name, measure in separate.items():
        if name.startswith("within_"):
            side = name.removeprefix("within_")
            page = _page(study, measure, [f"{side} prompts"], "matrix")
            caption = NO_CIRCUIT.get(side, "") if page is None or _is_empty(page) else _chance(measure)
            pages += [{**page, "caption": caption, "unit": "cosine"}] if page else []
    return _view(study, "Circuits of one side", ["Circuits of"], pages, png) if pages else None


def cross_view(study: Study, png: str) -> View | None:
    """Return safe, and refused hard, circuits against toxic ones."""
    separate, pages = study.comparison["separate"], []
    for name, (title, rows) in SIDES.items():
        page = _page(study, separate.get(name), [title], "matrix")
        if page:
            matrix = read_matrix(separate[name], study.comparison)
            mean = matrix.mean_diagonal() if matrix else None
            facts = [
                "" if mean is None else f"mean of the diagonal {mean:.2f}",
                _chance(separate[name]),
                f"row: {rows}",
            ]
            pages.append({**page, "caption": "; ".join(filter(None, facts)), "unit": "cosine"})
    axes = {"across": "toxic", "down": "safe or hard"}
    title = "Safe and hard against toxic circuits"
    return _view(study, title, ["Compared"], pages, png, frame=True, **axes) if pages else None


def _view(
    study: Study, title: str, keys: Sequence[str], pages: Sequence[Mapping[str, Any]], png: str, **more: Any
) -> View:
    comparison = study.comparison
    names = list(comparison["categories"])
    one_for_all = [names.index(name) for name in study_order(comparison)]
    data = {
        "title": title,
        "keys": list(keys),
        "categories": names,
        "marks": [name for name in names if name not in comparison["voting"]],
        "orders": {
            "clusters of transfer": one_for_all,
            "clusters of this matrix": None,
            "by name": sorted(range(len(names)), key=lambda c: names[c]),
        },
        "pages": list(pages),
        "scale": [[step, colour_of(step)] for step in STEPS],
        "undefined": UNDEFINED,
        "across": "",
        "down": "",
        "frame": False,
        **more,
    }
    return View("heatmap", data, title, png)


def _page(
    study: Study,
    measure: Mapping[str, Any] | None,
    keys: list[str],
    key: str,
    notes: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any] | None:
    """One matrix over all categories, whether or not they vote."""
    matrix = read_matrix(measure, study.comparison, key)
    if matrix is None:
        return None
    names = list(study.comparison["categories"])
    top = max((v for row in matrix.values for v in row if v is not None), default=1.0) if key == "drops" else 1.0
    ceiling = None if key != "matrix" or matrix.ceiling is None else _spread(matrix.labels, matrix.ceiling, names)
    ordered = cluster_order(matrix)
    return {
        "keys": keys,
        "values": [
            [None] * len(names) if row is None else _spread(matrix.labels, row, names)
            for row in (dict(zip(matrix.labels, matrix.values, strict=True)).get(name) for name in names)
        ],
        "ceiling": ceiling,
        "notes": list(notes),
        "order": [names.index(name) for name in (*ordered, *(name for name in names if name not in ordered))],
        "top": top if top > 0 else 1.0,
        "digits": 1 if key == "drops" else 2,
    }


def _p_values(study: Study) -> list[dict[str, Any]]:
    """Of each pair of categories, adjusted for their number."""
    names, notes = study.comparison["categories"], []
    for test, title in TESTS.items():
        found = ((study.comparison.get("tests") or {}).get(test) or {}).get("pairs_adjusted")
        matrix = read_matrix({"matrix": found}, study.comparison) if found else None
        if matrix:
            rows = dict(zip(matrix.labels, matrix.values, strict=True))
            blank = [None] * len(matrix.labels)
            values = [_spread(matrix.labels, rows.get(name, blank), names) for name in names]
            notes.append({"name": title, "values": values, "p": True})
    return notes


def _spread(labels: Sequence[str], row: Sequence[float | None], names: Sequence[str]) -> list[float | None]:
    """A row over some categories as one over all, short numbers."""
    found = dict(zip(labels, row, strict=True))
    return [None if found.get(name) is None else float(f"{found[name]:.{DIGITS}g}") for name in names]


def _chance(test: Mapping[str, Any]) -> str:
    return "" if test.get("p") is None else f"overlap above chance: p = {test['p']:.2g}"


def _is_empty(page: Mapping[str, Any]) -> bool:
    return all(value is None for row in page["values"] for value in row)
