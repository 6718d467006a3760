"""The sections of a report that audit its ground: data, refusal labels, SAEs, the limits, and how to make it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from refusal.prompts.prompt import SPLITS
from refusal.report.blocks import Block, Bullets, Code, Fold, Section, Table, Text, number, share
from refusal.report.labels import labels_section
from refusal.report.saes import saes_section
from refusal.report.study import Study

MIN_PER_CATEGORY = 20  # a category votes with so many refused and so many complied prompts
PACKAGES = ("refusal-circuits", "torch", "transformers", "pytorch-lightning", "numpy", "scipy")


def audit_sections(study: Study, command: str, rebuild: str, *, texts: bool) -> list[Section]:
    """Return the sections.

    Args:
        study: The study.
        command: What made it.
        rebuild: What makes its report again from the files.
        texts: Whether prompts and responses are shown.
    """
    return [
        Section("The data", "data", _data(study)),
        labels_section(study.labels, texts=texts),
        saes_section(study),
        Section("Limits", "limits", [Bullets(_limits(study))]),
        Section("How to reproduce it", "reproduce", _reproduce(study, command, rebuild)),
    ]


def _data(study: Study) -> list[Block]:
    blocks: list[Block] = [
        Text("Split is what the data set calls a prompt, refused what the model did with it: never the same thing."),
        Table(["Split", "Prompts", "Refused", "Share", "Remark"], _by_split(study), words=(4,)),
        Table(
            ["Category", "Safe, hard, toxic", "Toxic share", "Used", "Refused", "Complied", "Own drop (nats)", "Vote"],
            [_category(study, name) for name in study.comparison["categories"]],
            "Safe, hard, toxic: prompts in the data; a third of them, the calibration fold, chose the refusal tokens. "
            "Used: the others. Own drop: how far knocking out its own direction lowers a category's refusal score.",
            words=(7,),
        ),
    ]
    warnings = (study.statistics or {}).get("warnings") or []
    if warnings:
        blocks.append(
            Fold(f"Warnings about the data ({len(warnings)})", [Bullets([("", str(line)) for line in warnings])])
        )
    return blocks


def _by_split(study: Study) -> list[list[str]]:
    """Split x refused, with over-refusal and compliance named."""
    counts, rows = study.comparison.get("refusal_by_split") or {}, []
    for split in SPLITS:
        row, rate = counts.get(split) or {}, (study.verdict.get("refusal_rate") or {}).get(split)
        refused, total = row.get("refused"), row.get("total")
        rate = refused / total if total else rate
        remark = "–" if rate is None else "over-refusal" if split != "toxic" and rate > 0.1 else ""
        if split == "toxic" and rate is not None and rate < 0.9:
            remark = f"complied with {share(1 - rate)}"
        rows.append([split, *("–" if n is None else str(n) for n in (total, refused)), share(rate), remark])
    return rows


def _category(study: Study, name: str) -> list[str]:
    """A category's row: counts, the own drop, and its vote or why it has none."""
    counts = (study.comparison.get("counts") or study.verdict.get("n") or {}).get(name) or {}
    drops = study.direct.get("drops") or []
    names = (
        study.comparison["categories"]
        if len(drops) == len(study.comparison["categories"])
        else study.comparison["voting"]
    )
    own = drops[names.index(name)][names.index(name)] if drops and name in names else None
    figures = ["–" if counts.get(key) is None else str(counts[key]) for key in ("used", "refused", "complied")]
    toxic = ((study.statistics or {}).get("categories") or {}).get(name) or {}
    return [
        name,
        ", ".join(str(toxic.get(split, "–")) for split in SPLITS),
        share(toxic.get("toxic_share")),
        *figures,
        number(own),
        "yes" if name in study.verdict["votes"] else f"no: {_why_not(counts)}",
    ]


def _why_not(counts: Mapping[str, int]) -> str:
    """The side of a category that is too small."""
    few = [
        f"{counts[key]} {key}"
        for key in ("refused", "complied")
        if (counts.get(key) or 0) < MIN_PER_CATEGORY and key in counts
    ]
    return f"only {' and '.join(few)}" if few else "too few refused or complied prompts"


def _limits(study: Study) -> list[tuple[str, str]]:
    explained = study.verdict.get("explained_share")
    items = [
        (
            "What the index is about",
            f"The fall of the refusal score at the last prompt token, by a knock-out that explains {share(explained)} "
            "of it; one direction a category, so that what deviates from its mean is not seen.",
        ),
        ("What counts as refusing", "How the greedy response begins; a refusal that comes later is not seen."),
        ("Which prompts", "These categories in one data set, in its language, under one chat template."),
        (
            "What the interval covers",
            "Drawing other prompts, and the error that calibration found; not another model, seed or template.",
        ),
    ]
    if study.comparison["sites"]:
        items.append(
            (
                "What the circuits depend on",
                "One SAE a site. Only about 30 % of features recur between SAE seeds, so overlap of features is weaker "
                "evidence than transfer, which needs no SAE.",
            )
        )
    return items


def _reproduce(study: Study, command: str, rebuild: str) -> list[Block]:
    verdict = study.verdict
    recorded = study.card.get("versions")
    versions = recorded or {name: _installed(name) for name in PACKAGES}
    rows = [[name, str(verdict.get(name, "–"))] for name in ("model", "data", "seed", "fingerprint", "schema_version")]
    rows += [[name, str(number)] for name, number in versions.items()]
    caption = "" if recorded else "Versions are those installed where this report was made."
    blocks: list[Block] = [
        Code(command),
        Table(["What", "Which"], rows, caption, words=(1,)),
        Text("This report alone, from the files and without a model:"),
        Code(rebuild),
    ]
    if study.card.get("config"):
        configuration = json.dumps(study.card["config"], indent=1, ensure_ascii=False, default=str)
        blocks.append(Fold("The whole configuration", [Code(configuration)]))
    return blocks


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
