"""The four traps that a study of refusal can step into (method.md, section 5), each named where it applies.

1. Detection looks modular, and gathering evidence shared, in every model.
2. The residual stream carries detection along.
3. The last layers look shared in every model.
4. One direction that opens every category proves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from refusal.models.sites import Site, parse_site
from refusal.report.blocks import number, share
from refusal.report.study import Study

APART = 0.1  # an index from another start says something else
LATE = 0.1  # of the effect, through layers without a vote


def traps(study: Study) -> list[tuple[str, str]]:
    """Return (trap, sentence) for each of the traps that this study could have stepped into."""
    found = [_gathering(study), _detection(study), _residual_stream(study), _last_layers(study), _union()]
    return [trap for trap in found if trap is not None]


def _gathering(study: Study) -> tuple[str, str] | None:
    """Applies where an early start would have given another index."""
    steps, index = study.direct.get("by_start") or [], study.verdict.get("index")
    early = steps[0]["index"] if steps else None
    if index is None or early is None or abs(early - index) <= APART:
        return None
    looks = "shared" if early > index else "separate"
    text = (
        f"Started at layer {steps[0]['start']}, transfer is {number(early)}: gathering evidence of harm looks {looks}, "
        f"whatever the decision does. The index is read at the latest start that works, N = {study.verdict['layer']}."
    )
    return "Gathering evidence is not deciding", text


def _detection(study: Study) -> tuple[str, str] | None:
    """Applies where writes before the decision were compared."""
    start = study.direct.get("start")
    if start is None or not any(site.is_write and site.layer < start for site in _sites(study.comparison)):
        return None
    text = (
        f"At component writes before layer {start} the model detects a category, by directions of its own. "
        "Low similarity there is no sign of separate mechanisms, and has no vote."
    )
    return "Detection looks modular in every model", text


def _residual_stream(study: Study) -> tuple[str, str] | None:
    """Applies where residual sites were compared."""
    if all(site.is_write for site in _sites(study.comparison)):
        return None
    text = (
        "Similarity at residual sites is biased towards modular: what was detected earlier still flows there. "
        "They are shown, marked as biased, and not counted."
    )
    return "The residual stream carries detection along", text


def _last_layers(study: Study) -> tuple[str, str] | None:
    """Applies where layers without a vote were compared, or much of the effect passes through what they write."""
    last, late = study.comparison["last_voting_layer"], study.verdict.get("late_share") or 0.0
    if late <= LATE and all(site.layer <= last for site in _sites(study.comparison)):
        return None
    text = (
        f"All refusals end in the same first tokens: layers after {last} have no vote. Of the effect of the knock-out, "
        f"{share(late)} passes through what they write."
    )
    return "The last layers look shared in every model", text


def _union() -> tuple[str, str]:
    """Applies always."""
    text = (
        "The mean direction over all categories contains a part of each, and removing it stops every refusal "
        "even where nothing is shared. Here each direction comes from one category and is tested on another."
    )
    return "One direction that opens every category proves nothing", text


def _sites(comparison: Mapping[str, Any]) -> list[Site]:
    return [parse_site(site["site"]) for site in comparison["sites"]]
