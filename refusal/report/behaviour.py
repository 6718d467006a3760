"""What circuits do to refusals: taken out of refused prompts, put into complied ones, beside what to compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from refusal.report.blocks import Block, Fold, Section, Table, Text, number, share

NAMES = {"none": "nothing changed"}
HOW_TO_READ = (
    "Read the lines against each other: on refused prompts, taking a category's circuit out should stop refusals as "
    "the difference in means does (Arditi et al., 2024), taking out as many random features should not, and as many "
    "neurons should do less if the autoencoders are of use; on complied prompts, taking anything out should move the "
    "model little, and switching the circuit on should make it refuse."
)


def behaviour_sections(comparison: Mapping[str, Any]) -> list[Section]:
    """Return the section, none where the study did not intervene.

    Args:
        comparison: Its ``behaviour`` has one row for a category and an intervention: ``category``, ``intervention``,
            ``prompts`` (``refused`` or ``complied``: what the unchanged model did), ``n_prompts``, ``refusal_rate``,
            ``score`` (mean refusal score, nats) and ``kl`` (of the next token, from the unchanged model, nats; an
            older study has none).
    """
    rows = comparison.get("behaviour") or []
    if not rows:
        return []
    kinds = list(dict.fromkeys((row["prompts"], row["intervention"]) for row in rows))
    of_kind = {kind: [row for row in rows if (row["prompts"], row["intervention"]) == kind] for kind in kinds}
    by_prompts = {name: [row for row in rows if row["prompts"] == name] for name, _ in kinds}
    caption = (
        "Means over categories, on held-out prompts. Refused: share of prompts whose greedy response refuses. Score: "
        "mean refusal score. KL: how far the next token's distribution moves; on complied prompts it is the price. "
        "Errors: what the SAEs leave out. Neurons: the strongest of the MLPs, as many as the circuit has features."
    )
    lines = [_line(kind, of_kind[kind]) for kind in kinds]
    headers = ["Prompts", "Intervention", "Prompts, in all", "Refused", "Score (nats)", "KL (nats)"]
    blocks: list[Block] = [
        Text(HOW_TO_READ),
        Table(headers, lines, caption, words=(1,)),
        Fold("Each category", [_by_category(prompts, of_prompts) for prompts, of_prompts in by_prompts.items()]),
    ]
    return [Section("What the circuits do to refusals", "behaviour", blocks)]


def _line(kind: tuple[str, str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One intervention: means over categories, each category with equal weight."""
    prompts, intervention = kind
    rate, score = (fmean(row[key] for row in rows) for key in ("refusal_rate", "score"))
    kl = fmean(row["kl"] for row in rows) if all("kl" in row for row in rows) else None
    n_prompts = sum(row["n_prompts"] for row in rows)
    named = [prompts, NAMES.get(intervention, intervention), str(n_prompts)]
    return [*named, share(rate), number(score, 1), number(kl, 3)]


def _by_category(prompts: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line a category, a column an intervention: refusal rate, and in brackets the figure that says more."""
    names = list(dict.fromkeys(str(row["intervention"]) for row in rows))
    found = {(row["category"], row["intervention"]): row for row in rows}
    lines = [
        [category, *(_cell(found[category, name]) for name in names)]
        for category in dict.fromkeys(row["category"] for row in rows)
    ]
    bracket = "the mean refusal score" if prompts == "refused" else "the KL"
    caption = f"{prompts.capitalize()} prompts: share refused, and in brackets {bracket} in nats."
    return Table(["Category", *(NAMES.get(name, name) for name in names)], lines, caption)


def _cell(row: Mapping[str, Any]) -> str:
    more = number(row["score"], 1) if row["prompts"] == "refused" else number(row.get("kl"), 3)
    return f"{share(row['refusal_rate'])} ({more})"
