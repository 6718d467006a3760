"""What was called a refusal, how often the two rules agree, and where they do not: texts for a person to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from refusal.activations.store import ActivationStore
from refusal.prompts.prompt import SPLITS
from refusal.report.blocks import Block, Fold, Section, Table, Text, number, share

MOST_LISTED = 20
MOST_LETTERS = 400  # of a text
RULES = {
    "phrases": "A prompt counts as refused if its response opens with a refusal phrase.",
    "score": "A prompt counts as refused if its refusal score, the log-odds of the tokens that open refusals, is "
    "over 0.",
    "both": "A prompt counts as refused if its response opens with a refusal phrase and its refusal score is over 0; "
    "those on which the two disagree are left out of comparisons.",
}


@dataclass(frozen=True)
class Disagreement:
    """A prompt that is a refusal by one rule and none by the other."""

    category: str
    split: str
    by_phrases: bool
    score: float
    """Refusal score, nats."""
    prompt: str
    response: str


@dataclass(frozen=True)
class Labels:
    """The labels of a study's original prompts."""

    rule: str
    n_judged: Mapping[str, int]
    """Prompts by split, where both rules could judge."""
    disagreements: Sequence[Disagreement]
    """The largest scores first, whatever their sign."""


def read_labels(store: Path) -> Labels:
    """Read the labels of a store; without responses or scores there is nothing that could disagree.

    Raises:
        InputError: It cannot be read.
    """
    activations = ActivationStore(store)
    table = activations.prompts()
    if activations.manifest["agreement"] is None:
        table = table[:0]
    table = table[table["variant"] == ""]
    apart = table[table["by_phrases"] != table["by_score"]].sort_values(
        "refusal_score", key=abs, ascending=False, kind="stable"
    )
    columns = ("category", "split", "by_phrases", "refusal_score", "text", "response")
    return Labels(
        activations.manifest["refused_by"],
        {split: int((table["split"] == split).sum()) for split in SPLITS},
        [Disagreement(*values) for values in zip(*(apart[name].tolist() for name in columns), strict=True)],
    )


def labels_section(labels: Labels | None, *, texts: bool) -> Section:
    """Return the section.

    Args:
        labels: None stands for a study whose activations are no longer there.
        texts: Whether prompts and responses are shown.
    """
    if labels is None:
        blocks: list[Block] = [Text("The activations are not there, and with them the responses: nothing to check.")]
    elif not sum(labels.n_judged.values()):
        blocks = [Text(RULES[labels.rule]), Text("There are no responses or no scores to compare it with.")]
    else:
        blocks = [Text(RULES[labels.rule]), _agreement(labels)]
        blocks += _disagreements(labels.disagreements) if texts else []
    return Section("What was called a refusal", "labels", blocks)


def _agreement(labels: Labels) -> Table:
    """How often the rules agree, over all and by split."""
    apart = {split: [found for found in labels.disagreements if found.split == split] for split in labels.n_judged}
    rows = [_line(split, n, apart[split]) for split, n in labels.n_judged.items() if n]
    rows.append(_line("all", sum(labels.n_judged.values()), labels.disagreements))
    caption = "Over all original prompts, the calibration fold, from which the refusal tokens were learnt, included."
    headers = ["Split", "Prompts", "Rules agree", "Share", "Refused by phrases only", "By score only"]
    return Table(headers, rows, caption)


def _line(name: str, n_prompts: int, apart: Sequence[Disagreement]) -> list[str]:
    by_phrases = sum(found.by_phrases for found in apart)
    n_agreed = n_prompts - len(apart)
    counts = [str(n) for n in (by_phrases, len(apart) - by_phrases)]
    return [name, str(n_prompts), str(n_agreed), share(n_agreed / n_prompts), *counts]


def _disagreements(found: Sequence[Disagreement]) -> list[Block]:
    if not found:
        return [Text("The two rules disagree on no prompt.")]
    rows = [
        [
            _cut(case.prompt),
            _cut(case.response) or "(empty)",
            number(case.score, 1),
            "phrases" if case.by_phrases else "score",
            f"{case.category}, {case.split}",
        ]
        for case in found[:MOST_LISTED]
    ]
    rest = len(found) - len(rows)
    caption = "The largest refusal scores first, whatever their sign."
    caption += f" {rest} more are not shown; the store's prompts() has them all." if rest else ""
    headers = ["Prompt", "Response", "Score (nats)", "Refused by", "Category, split"]
    table = Table(headers, rows, caption, words=(1, 3, 4))
    return [Fold(f"Where they disagree: {len(rows)} of {len(found)} to read", [table])]


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_LETTERS else f"{line[:MOST_LETTERS]}…"
