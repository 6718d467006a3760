"""What ``verdict.json`` says: the verdict with its evidence, and what else the transfer matrix tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from refusal.comparison.groups import core_and_tail, effective_circuits, group_categories
from refusal.comparison.material import Material
from refusal.comparison.readings import number
from refusal.comparison.transfer import Direct, transfer_matrix
from refusal.comparison.verdict import decide


def conclude(material: Material, comparison: Mapping[str, Any], direct: Direct | None) -> dict[str, Any]:
    """Return what ``verdict.json`` says of the content of ``{model}_comparison.json``; ``direct`` None: unmeasured."""
    contrast, voting = material.contrast, material.voting
    readings, effect = comparison["transfer"], material.effect
    headline = readings["direct"] or dict.fromkeys(("index", "low", "high", "start", "explained_share"))
    verdict = decide(
        index=headline["index"],
        low=headline["low"],
        high=headline["high"],
        explained_share=headline["explained_share"] or 0.0,
        late_share=direct.late_share if direct else 0.0,
        n_voting=len(voting),
        prompts_per_category=int(contrast.count(refused=True)[voting].min()) if voting else 0,
    )
    return {
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "more_prompts": verdict.more_prompts,
        "index": headline["index"],
        "ci_low": headline["low"],
        "ci_high": headline["high"],
        "layer": headline["start"],
        "explained_share": headline["explained_share"],
        "late_share": number(direct.late_share) if direct else None,
        "controls": {
            "random_share": number(direct.random_drop / effect) if direct else None,
            "kl_complied": number(direct.divergence) if direct else None,
        },
        "readings": {
            name: {key: found[key] for key in ("index", "low", "high")} if found else None
            for name, found in readings.items()
        },
        **_structure(material, direct),
        "p": {name: test["p"] for name, test in comparison["tests"].items()},
        "n": comparison["counts"],
        "votes": comparison["voting"],
    }


def _structure(material: Material, direct: Direct | None) -> dict[str, Any]:
    """Return groups of categories, the effective number of circuits, and the shares that all or one of them use."""
    nothing = {"groups": [], "effective_circuits": None, "core": None, "tail": None}
    if direct is None:
        return nothing
    voting = material.voting
    drops = direct.index_drops.matrix()[np.ix_(voting, voting)]
    transfer = transfer_matrix(drops)
    if not np.isfinite(transfer).all():
        return nothing
    names = [material.contrast.categories[c] for c in voting]
    core, tail = core_and_tail(drops) or (None, None)
    return {
        "groups": [[names[c] for c in group] for group in group_categories(transfer).members],
        "effective_circuits": effective_circuits(transfer),
        "core": core,
        "tail": tail,
    }
