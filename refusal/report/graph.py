"""The circuits as graphs that can be explored on the page, and the pages of their nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from refusal.circuits.circuit import Circuit
from refusal.circuits.features import HEAD, STRONGEST, strongest
from refusal.models.sites import parse_site
from refusal.report.blocks import Section, Table, Text, View, number
from refusal.report.matrices import short
from refusal.report.study import Study

KINDS = {"attention": "attention", "mlp": "MLP", "residuals": "residual"}
MOST_EDGES = 600  # of a circuit, on the page
LISTED, WORDS = 12, 5  # features, and tokens of each, in the table


def graph_view(study: Study) -> View | None:
    """Return the circuits' graphs; None in a study without circuits."""
    circuits = _drawn(study)
    if not circuits:
        return None
    names = sorted({node.site for circuit in circuits for node in strongest(circuit)}, key=parse_site)
    sites = {name: [parse_site(name).layer, KINDS[parse_site(name).kind]] for name in names}
    described = [f"{one['site']}/{one['feature']}" for one in (study.features or {}).get("features", ())]
    data = {"circuits": [_graph(circuit) for circuit in circuits], "sites": sites, "described": described}
    return View("graph", data, "The circuits as graphs")


def features_section(study: Study, *, texts: bool) -> list[Section]:
    """Return the section with a page for each node; none in a study without circuits.

    Args:
        study: The study.
        texts: Whether tokens of prompts are shown.
    """
    circuits = _drawn(study)
    if not circuits:
        return []
    if study.features is None:
        text = "This study's files do not say what its features are; discover.py with force=true would."
        return [Section("What the features are", "features", [Text(text)])]
    about = (
        "Of each of a circuit's nodes (a feature of an SAE): how much it matters to a category, when it is "
        "active at the last token, where refusal is read, which tokens its decoder direction makes likelier by itself "
        "(logit lens), which features of the same SAE point the same way (cosine), and where it is most active."
    )
    about += "" if texts else " Texts of prompts are left out (report.texts=false)."
    ordered = _strongest(study, circuits)
    pages = {**_pages(study, circuits, texts=texts), "first": next(iter(ordered), None)}
    view, table = View("features", pages, "Pages of features"), _table(study, ordered, len(circuits))
    return [Section("What the features are", "features", [Text(about), view, table])]


def _drawn(study: Study) -> list[Circuit]:
    return [circuit for circuit in study.circuits if circuit.side == "all" and circuit.has_circuit]


def _graph(circuit: Circuit) -> dict[str, Any]:
    """A circuit's strongest nodes and edges."""
    nodes = strongest(circuit)
    place = {node.id: number for number, node in enumerate(nodes)}
    edges = [edge for edge in circuit.edges if edge.up in place and edge.down in place]
    edges = sorted(edges, key=lambda edge: -abs(edge.weight))[:MOST_EDGES]
    return {
        "category": circuit.category,
        "n_nodes": len(circuit.nodes),
        "n_edges": len(circuit.edges),
        "nodes": [[node.site, node.feature, _brief(node.importance)] for node in nodes],
        "edges": [[place[edge.up], place[edge.down], _brief(edge.weight)] for edge in edges],
    }


def _pages(study: Study, circuits: Sequence[Circuit], *, texts: bool) -> dict[str, Any]:
    assert study.features is not None
    nodes: dict[str, list[list[Any]]] = {}
    for circuit in circuits:
        for node in circuit.nodes:
            nodes.setdefault(node.id, []).append([circuit.category, _brief(node.importance)])
    features = study.features["features"]
    described = {f"{one['site']}/{one['feature']}" for one in features}
    keep = ("id", "category", "split", "refused", "left_out", *(["tokens"] if texts else []))
    return {
        "categories": study.features["categories"],
        "prompts": [{name: prompt[name] for name in keep} for prompt in study.features["prompts"]],
        "features": features,
        "nodes": {name: found for name, found in nodes.items() if name in described},
        "head": HEAD,
    }


def _strongest(study: Study, circuits: Sequence[Circuit]) -> dict[str, list[tuple[float, str]]]:
    """Features with a page, the most important over all categories first: (importance, category) of each circuit.

    Those at the sites that circuits are compared at come before all others.
    """
    assert study.features is not None
    described = {f"{one['site']}/{one['feature']}" for one in study.features["features"]}
    found: dict[str, list[tuple[float, str]]] = {}
    for circuit in circuits:
        for node in circuit.nodes:
            if node.id in described:
                found.setdefault(node.id, []).append((node.importance, circuit.category))
    compared = set((study.comparison.get("combined") or {}).get("sites") or [])
    by_importance = sorted(found, key=lambda name: -sum(abs(value) for value, _ in found[name]))
    return {name: found[name] for name in sorted(by_importance, key=lambda name: name.split("/")[0] not in compared)}


def _table(study: Study, strongest_first: Mapping[str, Sequence[tuple[float, str]]], n_circuits: int) -> Table:
    """The strongest features, with the tokens that they raise: what paper and Markdown can show."""
    assert study.features is not None
    by_id = {f"{one['site']}/{one['feature']}": one for one in study.features["features"]}
    rows = []
    for name, own in list(strongest_first.items())[:LISTED]:
        value, category = max(own, key=lambda one: abs(one[0]))
        words = [", ".join(repr(token)[1:-1] for token, _ in by_id[name][end][:WORDS]) for end in ("raises", "lowers")]
        most = f"{number(value)} ({short(category)})"
        rows.append([name, f"{len(own)} of {n_circuits}", most, *(short(text, 80) for text in words)])
    caption = (
        f"The strongest over all categories, first of all where circuits are compared. {len(by_id)} features have a "
        f"page in report.html: the {STRONGEST} strongest of each circuit at most."
    )
    headers = ["Feature", "In circuits", "Most important, nats", "Makes likelier", "Less likely"]
    return Table(headers, rows, caption, words=(2, 3, 4))


def _brief(value: float) -> float:
    return float(f"{value:.4g}")
