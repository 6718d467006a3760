"""The heatmaps that can be explored on the page: every matrix that a study has, by measure, site, reading.

Each view is one matrix at a time, chosen by its keys; see ``static/heatmap.js`` for what it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from refusal.report.blocks import View
from refusal.report.matrices import Matrix, cluster_order, read_matrix, study_order
from refusal.report.panels import NO_CIRCUIT
from refusal.report.sites import in_words
from refusal.report.study import Study
from refusal.style import UNDEFINED, colour_of, ink_on

MEASURES = {
    "cosine": "Cosine of importances",
    "net_direction": "Cosine of net directions",
    "node_jaccard": "Jaccard of nodes",
    "weighted_jaccard": "Weighted Jaccard",
    "subspace": "Overlap of subspaces",
}
READINGS = {"direct": "Directions (the index)", "circuit": "Net writes of circuits", "window": "Window of layers"}
SIDES = {"cross": ("safe", "Safe against toxic"), "over_refusal": ("hard", "Hard, refused, against toxic")}
TESTS = {"distinguishable": "told apart, p", "above_chance": "overlap above chance, p"}
STEPS = [step / 20 for step in range(21)]
BLACK = "#000000"
DIGITS = 4  # significant ones that go to the page


def similarity_view(study: Study, png: str) -> View | None:
    """Return how alike the circuits are, by measure and site; None in a study without circuits."""
    comparison = study.comparison
    combined, pages = comparison.get("combined") or {}, []
    found = [("all compared", in_words(combined.get("sites") or []), combined)] if combined else []
    found += [(site["site"], "biased towards modular" if site["biased"] else "", site) for site in comparison["sites"]]
    for name in dict.fromkeys(name for _, _, of_site in found for name in of_site["measures"]):
        for where, caption, of_site in found:
            for key, shown in (("matrix", "as measured"), ("corrected", "over the ceiling")):
                keys = [MEASURES.get(name, name), where, shown]
                pages += _page(study, of_site["measures"].get(name), keys, key=key, caption=caption, unit="similarity")
    notes = _p_values(study)
    return _view(study, "Circuits: how alike", ["Measure", "Sites", "Values"], pages, png, notes=notes)


def transfer_view(study: Study, png: str) -> View | None:
    """Return causal transfer, by reading and starting layer, as shares and in nats; None where it was not measured."""
    transfer, pages = study.comparison.get("transfer") or {}, []
    for name, title in READINGS.items():
        reading = transfer.get(name) or {}
        others = [step for step in reading.get("by_start") or [] if step["start"] != reading.get("start")]
        for step in (reading, *others):
            start = "" if step.get("start") is None else f"knock-out from layer {step['start']} on"
            keys, caption = (
                [title, str(step.get("start", "–"))],
                start if step is reading else f"{start}; not the index",
            )
            pages += _page(study, step, [*keys, "share of own fall"], caption=caption, unit="share")
            pages += _page(study, step, [*keys, "fall, nats"], key="drops", caption=caption, unit="fall (nats)")
    axes = {"across": "refusal tested on", "down": "knocked out"}
    return _view(study, "Causal transfer", ["Reading", "From layer", "Values"], pages, png, **axes)


def within_view(study: Study, png: str) -> View | None:
    """Return how alike the circuits of one side are; None without separate circuits."""
    separate, pages = study.comparison["separate"], []
    for side in ("safe", "hard", "toxic"):
        measure = separate.get(f"within_{side}") or {}
        caption = _chance(measure) if _is_defined(study, measure) else NO_CIRCUIT[side]
        pages += _page(study, measure, [f"{side} prompts"], caption=caption)
    return _view(study, "Circuits of one side", ["Circuits of"], pages, png)


def cross_view(study: Study, png: str) -> View | None:
    """Return safe, and refused hard, circuits against toxic ones; None without separate circuits."""
    separate, pages = study.comparison["separate"], []
    for name, (side, title) in SIDES.items():
        measure = separate.get(name) or {}
        matrix = read_matrix(measure, study.comparison)
        mean = matrix.mean_diagonal() if matrix else None
        facts = ["" if mean is None else f"mean of the diagonal {mean:.2f}", _chance(measure)]
        empty = NO_CIRCUIT["toxic" if _is_defined(study, separate.get(f"within_{side}")) else side]
        caption = "; ".join(filter(None, facts)) if _is_defined(study, measure) else empty
        pages += _page(study, measure, [title], caption=caption)
    axes = {"across": "toxic circuit", "down": "safe or hard circuit"}
    return _view(study, "Safe and hard against toxic circuits", ["Compared"], pages, png, frame=True, **axes)


def _view(
    study: Study, title: str, keys: Sequence[str], pages: Sequence[Mapping[str, Any]], png: str, **more: Any
) -> View | None:
    """Put pages together, None if there are none."""
    comparison = study.comparison
    names = list(comparison["categories"])
    data = {
        "title": title,
        "keys": list(keys),
        "categories": names,
        "marks": [name for name in names if name not in comparison["voting"]],
        "orders": {
            "clusters of transfer": [names.index(name) for name in study_order(comparison)],
            "clusters of this matrix": None,
            "by name": sorted(range(len(names)), key=lambda c: names[c]),
        },
        "pages": list(pages),
        "scale": [[step, colour_of(step)] for step in STEPS],
        "dark": max(step for step in STEPS if ink_on(colour_of(step)) == BLACK),
        "undefined": UNDEFINED,
        "across": "",
        "down": "",
        "frame": False,
        "notes": [],
        **more,
    }
    return View("heatmap", data, title, png) if pages else None


def _page(
    study: Study,
    measure: Mapping[str, Any] | None,
    keys: Sequence[str],
    *,
    key: str = "matrix",
    caption: str,
    unit: str = "cosine",
) -> list[dict[str, Any]]:
    """One matrix over all categories, whether or not they vote; none where it was not measured."""
    matrix = read_matrix(measure, study.comparison, key)
    if matrix is None:
        return []
    names, ordered = list(study.comparison["categories"]), cluster_order(matrix)
    most = max((v for row in matrix.values for v in row if v is not None), default=0.0)
    has_ceiling = key == "matrix" and matrix.ceiling is not None
    return [
        {
            "keys": list(keys),
            "caption": caption,
            "unit": unit,
            "values": _square(matrix, names),
            "ceiling": _spread(matrix.labels, matrix.ceiling or (), names) if has_ceiling else None,
            "order": [names.index(name) for name in (*ordered, *(name for name in names if name not in ordered))],
            "top": most if key == "drops" and most > 0 else 1.0,
            "digits": 1 if key == "drops" else 2,
        }
    ]


def _p_values(study: Study) -> list[dict[str, Any]]:
    """Of each pair of categories, adjusted for their number."""
    notes = []
    for test, title in TESTS.items():
        found = (study.comparison.get("tests") or {}).get(test) or {}
        matrix = read_matrix(found, study.comparison, "pairs_adjusted")
        notes += [{"name": title, "values": _square(matrix, study.comparison["categories"])}] if matrix else []
    return notes


def _square(matrix: Matrix, names: Sequence[str]) -> list[list[float | None]]:
    """A matrix over some categories as one over all."""
    rows = dict(zip(matrix.labels, matrix.values, strict=True))
    return [_spread(matrix.labels, rows.get(name, [None] * len(matrix.labels)), names) for name in names]


def _spread(labels: Sequence[str], row: Sequence[float | None], names: Sequence[str]) -> list[float | None]:
    """A row over some categories as one over all, short numbers."""
    found = dict(zip(labels, row, strict=True))
    return [None if found.get(name) is None else float(f"{found[name]:.{DIGITS}g}") for name in names]


def _chance(test: Mapping[str, Any]) -> str:
    return "" if test.get("p") is None else f"overlap above chance: p = {test['p']:.2g}"


def _is_defined(study: Study, measure: Mapping[str, Any] | None) -> bool:
    matrix = read_matrix(measure, study.comparison)
    return matrix is not None and matrix.defined()
