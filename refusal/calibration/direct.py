"""One model of the family by the ``direct`` reading, from its prompts to the verdict, as a study does it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from refusal.calibration.family import Member
from refusal.comparison.readings import direct_reading, number
from refusal.comparison.transfer import measure_direct
from refusal.comparison.verdict import decide

BOOTSTRAP = 2000


def measure(member: Member) -> dict[str, Any]:
    """Return what the measurement says of a model, beside the truth, as JSON holds it."""
    started = time.monotonic()
    study = member.study()
    contrast, voting = study.contrast, study.voting
    direct = measure_direct(study.knock_outs, voting, seed=member.number)
    effect = float(contrast.effect()[voting].mean())
    rng = np.random.default_rng([member.number, 2])
    headline = direct_reading(direct, voting, effect, bootstrap=BOOTSTRAP, rng=rng)
    verdict = decide(
        index=headline["index"],
        low=headline["low"],
        high=headline["high"],
        explained_share=headline["explained_share"] or 0.0,
        late_share=direct.late_share,
        n_voting=len(voting),
        prompts_per_category=int(contrast.count(refused=True)[voting].min()),
    )
    return {
        "truth": study.truth,
        "voting": len(voting),
        "index": headline["index"],
        "low": headline["low"],
        "high": headline["high"],
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "layer": direct.start,
        "explained_share": headline["explained_share"],
        "random_share": number(direct.random_drop / effect),
        "late_share": number(direct.late_share),
        "seconds": round(time.monotonic() - started, 2),
    }
