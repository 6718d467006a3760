"""The sections of a report that carry the evidence: transfer by layer, matrices, readings, tests, circuits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from refusal.circuits.circuit import Circuit
from refusal.models.sites import parse_site
from refusal.report.behaviour import behaviour_sections
from refusal.report.blocks import (
    Block,
    Bullets,
    Fold,
    Key,
    Row,
    Section,
    Table,
    Text,
    interval,
    number,
    p_value,
    share,
)
from refusal.report.curves import faithfulness_view, index_view
from refusal.report.explore import cross_view, similarity_view, transfer_view, within_view
from refusal.report.graph import features_section, graph_view
from refusal.report.matrices import read_matrix
from refusal.report.panels import HOW_TO_READ_CROSS, cross_panel
from refusal.report.sites import in_words
from refusal.report.study import Study
from refusal.report.traps import traps
from refusal.report.words import agrees, claims, extremes, over_refusal

READINGS = {
    "direct": "Each category's own direction, knocked out at every component write from N on; it is the index",
    "circuit": "The same with the net write of the category's circuit in place of its direction",
    "window": "At each write, all that has been written since N is taken off together",
}
TESTS = {
    "distinguishable": (
        "Told apart",
        "Can the categories be told apart by the features that refuse? Statistic: mean cosine of two prompts' "
        "importances within a category minus that between categories; labels are permuted among prompts",
    ),
    "above_chance": (
        "Above chance",
        "Do categories share more features than chance would have it? Statistic: mean cosine of two categories' "
        "importances; features are permuted among equally active ones",
    ),
}
JUDGED_BY = {
    "faithfulness": "Faithfulness",
    "faithfulness_all_errors": "With all errors",
    "completeness": "Completeness",
    "cpr": "CPR",
    "cmd": "CMD",
}
INDEX_PNG = "index_by_layer.png"
LEVEL = 0.05  # of a test


def evidence_sections(study: Study, pictures: Mapping[str, str], *, texts: bool) -> list[Section]:
    """Return the sections.

    Args:
        study: The study.
        pictures: Each picture's file name, for Markdown.
        texts: Whether texts of prompts are shown.
    """
    sections = [
        Section("Which layer decides", "layers", _layers(study)),
        Section("Who stops whom, and how alike the circuits are", "matrices", _matrices(study, pictures)),
        Section("Readings of the same question", "readings", _readings(study)),
        Section("Two tests", "tests", _tests(study)),
    ]
    if study.comparison.get("separate"):
        sections.append(Section("Safe and toxic circuits apart", "separate", _separate(study, pictures)))
    sections.append(Section("The circuits, and how much of the score they carry", "circuits", _circuits(study)))
    sections += features_section(study, texts=texts)
    sections += behaviour_sections(study.comparison)
    sections.append(Section("Traps this study could have stepped into", "traps", [Bullets(traps(study))]))
    rows = [list(claim) for claim in claims(study)]
    position = Table(["Published claim", "Index it predicts", "This study"], rows, words=(1, 2))
    sections.append(Section("Among published claims", "claims", [position]))
    return sections


def _layers(study: Study) -> list[Block]:
    view = index_view(study, INDEX_PNG)
    if view is None:
        return [Text("Causal transfer was not measured.", warning=True)]
    text = (
        "Knocking out a category's direction from layer N on lowers the refusal score of its own prompts (below) and "
        "of the other categories' prompts; the second fall divided by the first is the index (above). The latest N "
        "that keeps half of the best own fall is chosen, by the fall and never by the index. The last fifth of the "
        "layers has no vote: all refusals begin with the same words there, so that they look shared in every model; "
        "the others are shaded."
    )
    return [Text(text), view]


def _matrices(study: Study, pictures: Mapping[str, str]) -> list[Block]:
    found = [transfer_view(study, pictures["similarity"]), similarity_view(study, pictures["similarity"])]
    views = [view for view in found if view is not None]
    if not views:
        return [Text("Neither circuits nor causal transfer were compared.", warning=True)]
    about = (
        "Dark is shared. Transfer: how far the refusal score of the column's prompts falls when the row's direction is "
        "knocked out, as a share of the fall by their own. The ceiling is what a category reaches with itself, from "
        "two halves of its prompts."
    )
    marks = len(study.comparison["voting"]) < len(study.comparison["categories"])
    blocks: list[Block] = [Text(about), Row(views), Key(marks)]
    said = [extremes(study)]
    groups = study.verdict.get("groups") or []
    if len(groups) > 1:
        said.append(f"Groups by transfer: {'; '.join(' + '.join(group) for group in groups)}.")
    if any(said):
        blocks.append(Text(" ".join(filter(None, said))))
    if not study.comparison["sites"]:
        blocks.append(Text("No circuits were compared in this study: transfer needs none.", warning=True))
    else:
        blocks.append(Fold("Similarity at every site", [_by_site(study)]))
    return blocks


def _by_site(study: Study) -> Table:
    """Mean similarity of two different categories, by site and measure: raw, and divided by the ceiling."""
    names = list(dict.fromkeys(name for site in study.comparison["sites"] for name in site["measures"]))
    rows = []
    for site in study.comparison["sites"]:
        cells = []
        for name in names:
            measure = site["measures"].get(name)
            raw, corrected = (read_matrix(measure, study.comparison, key) for key in ("matrix", "corrected"))
            means = [number(matrix.mean_off_diagonal()) if matrix else "–" for matrix in (raw, corrected)]
            cells.append(" / ".join(means))
        rows.append([site["site"], _role(study, site), *cells])
    caption = "Mean over pairs of categories: raw / divided by the noise ceiling."
    headers = ["Site", "Role", *(name.replace("_", " ").replace("jaccard", "Jaccard") for name in names)]
    return Table(headers, rows, caption, words=(1,))


def _role(study: Study, site: Mapping[str, Any]) -> str:
    """What a site's similarity is worth to the question."""
    if site["site"] in _counted(study):
        return "compared"
    if site["biased"]:
        return "biased towards modular"
    start = study.direct.get("start")
    if site["votes"] and start is not None and parse_site(site["site"]).layer < start:
        return "before the decision"
    return "not compared" if site["votes"] else "no vote"


def _readings(study: Study) -> list[Block]:
    readings, transfer = study.verdict.get("readings") or {}, study.comparison.get("transfer") or {}
    rows, apart, measured = [], [], 0
    for name in READINGS:
        reading = readings.get(name) or {}
        if reading.get("index") is None:
            rows.append([name, "–", "–", "–", "not measured"])
            continue
        measured += 1
        agree = agrees(readings.get("direct"), reading)
        word = "–" if name == "direct" or agree is None else "agrees" if agree else "disagrees"
        apart += [name] if agree is False else []
        start = (transfer.get(name) or {}).get("start")
        bounds = interval(reading.get("low"), reading.get("high"))
        rows.append([name, number(reading["index"]), bounds, "–" if start is None else str(start), word])
    table = Table(["Reading", "Index", "95 % interval", "From layer", "With the index"], rows, words=(4,))
    summary = Text("They agree." if measured > 1 else "No second reading was measured: nothing can disagree.")
    if apart:
        summary = Text(f"They disagree: {' and '.join(apart)} against direct, which the verdict follows.", warning=True)
    return [summary, table, Bullets([(name.capitalize(), f"{meaning}.") for name, meaning in READINGS.items()])]


def _tests(study: Study) -> list[Block]:
    tests = study.comparison.get("tests")
    if not tests:
        return [Text("No tests: they need per-prompt importances, and this study has no circuits.")]
    rows = []
    for name, (title, _) in TESTS.items():
        test = tests.get(name) or {}
        p = test.get("p")
        answer = "–" if p is None else "yes" if p < LEVEL else "not shown"
        rows.append([title, answer, p_value(p), number(test.get("statistic")), _pairs(test)])
    table = Table(["Test", f"At {share(LEVEL)}", "p value", "Statistic", "Pairs that pass"], rows, words=(1,))
    both = "Both can be yes: categories may be told apart and still share most of their mechanism."
    note = Text(f"{both} Pairs pass at {share(LEVEL)} after Benjamini and Hochberg's adjustment.")
    return [table, Bullets([(title, f"{question}.") for title, question in TESTS.values()]), note]


def _pairs(test: Mapping[str, Any]) -> str:
    """How many pairs of categories pass at 5 %, of how many."""
    table = test.get("pairs_adjusted") or []
    if not all(isinstance(row, list) for row in table):
        return "–"
    values = [row[j] for i, row in enumerate(table) for j in range(i + 1, len(row)) if row[j] is not None]
    return f"{sum(value < LEVEL for value in values)} of {len(values)}" if values else "–"


def _separate(study: Study, pictures: Mapping[str, str]) -> list[Block]:
    cross = cross_panel(study.comparison)
    views = [within_view(study, pictures["separate"]), cross_view(study, pictures["cross"])]
    text = (
        "One circuit from a category's safe prompts and one from its toxic ones (and one from hard ones that were "
        "refused), all against a model in which nothing is active, so that they can be compared; what every prompt "
        "uses is in all of them."
    )
    how = [Text(" ".join(HOW_TO_READ_CROSS))] if cross.matrix and cross.matrix.defined() else []
    return [
        Text(text),
        Row([view for view in views if view is not None]),
        Key(len(study.comparison["voting"]) < len(study.comparison["categories"])),
        *how,
        Text(over_refusal(study)),
    ]


def _circuits(study: Study) -> list[Block]:
    evaluation = study.comparison.get("evaluation") or []
    if not study.circuits and not evaluation:
        return [Text("This study has no circuits: they need trained SAEs.")]
    circuits = {circuit.category: circuit for circuit in study.circuits if circuit.side == "all"}
    counted, rows = _counted(study), []
    for row in evaluation:
        figures = [number(row.get(key)) for key in JUDGED_BY]  # an older study has no cpr
        top = _strongest(circuits.get(row["category"]), counted)
        rows.append([row["category"], str(row["n_nodes"]), str(row["n_edges"]), *figures, top])
    headers = ["Category", "Nodes", "Edges", *JUDGED_BY.values(), "Strongest features"]
    text = (
        "Faithfulness: the share of the refusal score that the circuit alone keeps (1: all of it). Completeness: the "
        "share left when the circuit is removed (0: nothing). On held-out prompts; a dash: the effect is too small. "
        "With all errors: faithfulness when what the SAEs leave out is kept as well. CPR: mean faithfulness of "
        "circuits from 0.1 % to all of the nodes, on a log axis (1 is best); CMD: its mean distance from 1 (0 is best)."
    )
    caption = f"Strongest features: as site/feature, among the {in_words(counted)}, by importance."
    blocks: list[Block] = [Text(text), Table(headers, rows, caption if counted else "", words=(8,))]
    blocks += [view for view in (faithfulness_view(study), graph_view(study)) if view is not None]
    agreement = study.comparison.get("agreement") or []
    if agreement:
        blocks.append(Fold("Does the fast attribution agree with the exact one?", [_agreement(agreement)]))
    return blocks


def _counted(study: Study) -> list[str]:
    """The sites that the comparison of circuits is about: those of the combined measures."""
    return list((study.comparison.get("combined") or {}).get("sites") or [])


def _strongest(circuit: Circuit | None, sites: Sequence[str]) -> str:
    """The three strongest features of a circuit at these sites."""
    nodes = [node for node in circuit.nodes if node.site in sites and node.feature >= 0] if circuit else []
    nodes = sorted(nodes, key=lambda node: -abs(node.importance))[:3]
    return ", ".join(f"{node.site}/{node.feature}" for node in nodes) or "–"


def _agreement(agreement: list[Mapping[str, Any]]) -> Table:
    """Rank correlation with exact patching, and each site's sum against its total effect."""
    rows = []
    for row in agreement:
        total, whole = row["total"], row["sum"]
        ratio = share(whole / total) if total and whole is not None else "–"
        rows.append([row["site"], row["method"], number(row["spearman"]), number(whole), number(total), ratio])
    caption = (
        "On a sample of prompts. Sum: of the attributions to a site's features and error. Total: measured when all of "
        "them are set to the baseline. Far from 100 %, the score is not linear in them: trust ranks, not sizes."
    )
    headers = ["Site", "Method", "Spearman with exact", "Sum (nats)", "Total (nats)", "Sum / total"]
    return Table(headers, rows, caption, words=(1,))
