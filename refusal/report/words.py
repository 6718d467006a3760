"""The sentences of a report: the verdict, the reasons for doubt, over-refusal, the place among published claims."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from refusal.comparison.verdict import MODULAR_BELOW, MONOLITHIC_ABOVE
from refusal.report.blocks import interval, number, p_value, share
from refusal.report.matrices import read_matrix, short
from refusal.report.study import Study

ANSWERS = {
    "monolithic": "{model} refuses by one mechanism that its harm categories share",
    "modular": "{model} refuses by separate mechanisms, one for each harm category",
    "groups": "{model} refuses by separate mechanisms, one for each of {groups} groups of harm categories",
    "mixed": "{model} refuses by mechanisms that its harm categories share in part",
    "inconclusive": "Whether {model} refuses by one mechanism or by several, this study cannot say",
}
ALIKE = {
    "monolithic": "Over-refusal is the same circuit as refusal",
    "mixed": "Over-refusal shares a part of the circuit of refusal",
    "modular": "Over-refusal is another circuit than refusal",
}
LOW_SHARE, DAMAGE = 0.5, 1.2  # of the refusal that the knock-out explains
LOW_AUC = 0.9
NOTABLE_KL = 0.1  # nats, on prompts that the model complies with
APART = 0.1  # two readings disagree when their intervals do not meet and they differ by more than this


def sentence(verdict: Mapping[str, Any]) -> str:
    """Return the verdict as one sentence, with the index and its interval."""
    groups, votes = len(verdict.get("groups") or []), len(verdict.get("votes") or [])
    key = "groups" if verdict["verdict"] == "modular" and 1 < groups < votes else verdict["verdict"]
    answer = ANSWERS[key].format(model=verdict["model"], groups=groups)
    if verdict.get("index") is None:
        return f"{answer}: there is no index."
    bounds = interval(verdict.get("ci_low"), verdict.get("ci_high"))
    return f"{answer}: index {number(verdict['index'])}, 95 % interval {bounds}."


def doubts(study: Study) -> list[str]:
    """Return what speaks against leaning on the verdict, the weightiest first; never empty."""
    verdict = study.verdict
    found = _about_the_knock_out(verdict) + _about_the_readings(study)
    auc, voting, known = verdict.get("score_auc"), len(verdict.get("votes") or []), len(study.comparison["categories"])
    if auc is not None and auc < LOW_AUC:
        found.append(
            f"The refusal score tells refused from complied prompts with an area under the ROC of only {number(auc)}."
        )
    if voting < known:
        found.append(f"Only {voting} of {known} categories have a vote: the others have too few prompts of a kind.")
    if voting == 2:
        found.append("Two categories are a single pair: another pair could tell another story.")
    if verdict["verdict"] == "inconclusive":
        more = verdict.get("more_prompts")
        advice = f" About {more} more refused prompts a category would do." if more else ""
        found.insert(0, f"{_as_sentence(verdict.get('reason') or 'the interval is too wide')}{advice}")
    return found or ["No check failed; none covers other prompts, other templates, or positions before the last token."]


def _about_the_knock_out(verdict: Mapping[str, Any]) -> list[str]:
    """Doubts from what the knock-out does, and from its two controls."""
    explained, controls = verdict.get("explained_share"), verdict.get("controls") or {}
    found = []
    if explained is not None and explained > DAMAGE:
        found.append(f"The knock-out removes {share(explained)} of the refusal, more than there is: it does damage.")
    elif explained is not None and explained < LOW_SHARE:
        rest = share(1 - max(explained, 0))
        found.append(
            f"The knock-out explains {share(explained)} of the refusal; of the other {rest} the index says nothing."
        )
    by_chance = controls.get("random_share")
    if by_chance is not None and explained is not None and abs(by_chance) > 0.25 * abs(explained):
        found.append(f"Random directions of the same size already explain {share(by_chance)}.")
    if (controls.get("kl_complied") or 0) > NOTABLE_KL:
        found.append(
            f"The knock-out also changes answers to complied prompts (KL {number(controls['kl_complied'])} nats)."
        )
    return found


def _about_the_readings(study: Study) -> list[str]:
    """Doubts from readings that contradict the index."""
    readings, found = study.verdict.get("readings") or {}, []
    for name in ("circuit", "window"):
        if agrees(readings.get("direct"), readings.get(name)) is False:
            other = readings[name]
            bounds = interval(other.get("low"), other.get("high"))
            found.append(f"The {name} reading disagrees: {number(other['index'])}, 95 % interval {bounds}.")
    return found


def agrees(direct: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool | None:
    """Say whether another reading agrees with the index; None where one of the two is absent."""
    if not direct or not other or direct.get("index") is None or other.get("index") is None:
        return None
    (low, high), (other_low, other_high) = (_bounds(reading) for reading in (direct, other))
    return (low <= other_high and other_low <= high) or abs(direct["index"] - other["index"]) <= APART


def _bounds(reading: Mapping[str, Any]) -> tuple[float, float]:
    """A reading's interval; its index twice where it has none."""
    low, high = reading.get("low"), reading.get("high")
    return (reading["index"], reading["index"]) if low is None or high is None else (low, high)


def _place(index: float | None, verdict: str) -> str | None:
    """The zone that the index lies in, None where the study is inconclusive."""
    if index is None or verdict == "inconclusive":
        return None
    return "monolithic" if index > MONOLITHIC_ABOVE else "modular" if index < MODULAR_BELOW else "mixed"


def claims(study: Study) -> list[tuple[str, str, str]]:
    """Return (published claim, the index that it predicts, what this study says) for each conflicting claim."""
    verdict = study.verdict
    place = _place(verdict.get("index"), verdict["verdict"])
    circuits = number(verdict.get("effective_circuits"), 1)

    def says(zone: str) -> str:
        return "cannot say" if place is None else "in line" if place == zone else f"not in line: {place}"

    several = verdict.get("effective_circuits")
    cones = (
        "cannot say"
        if place is None or several is None
        else "in line"
        if several >= 1.5
        else "not needed for the categories"
    )
    return [
        ("One direction serves all categories (Arditi et al., 2024)", "over 0.7", says("monolithic")),
        (
            "Several independent directions, concept cones (Wollschläger et al., 2025)",
            "any, if all categories share the cone; otherwise 2 or more effective circuits",
            f"{cones} ({circuits} effective circuits)",
        ),
        ("Distinct directions over a small shared core (Joad et al., 2026)", "0.3 to 0.7", says("mixed")),
        ("A direction for each category, nothing shared", "under 0.3", says("modular")),
    ]


def over_refusal(study: Study) -> str:
    """Return whether over-refusal is the same circuit as refusal, in one sentence; empty without separate circuits."""
    separate = study.comparison.get("separate") or {}
    hard, safe = (_mean_diagonal(separate.get(name), study) for name in ("over_refusal", "cross"))
    if not separate:
        return ""
    if hard is None:
        return "Over-refusal cannot be compared: no category has a circuit on hard prompts that the model refused."
    same = ALIKE["monolithic" if hard > MONOLITHIC_ABOVE else "modular" if hard < MODULAR_BELOW else "mixed"]
    against = "" if safe is None else f", that of safe and toxic prompts {number(safe)}"
    chance = p_value(separate["over_refusal"].get("p"))
    return (
        f"{same}: circuits of a category's refused hard prompts and of its toxic ones have a mean cosine of "
        f"{number(hard)} (overlap above chance: p = {chance}){against}."
    )


def _mean_diagonal(picture: Mapping[str, Any] | None, study: Study) -> float | None:
    matrix = read_matrix(picture, study.comparison)
    return matrix.mean_diagonal() if matrix else None


def extremes(study: Study) -> str:
    """Return between which two categories transfer is least and most; empty where there is none."""
    matrix = read_matrix(study.direct, study.comparison)
    pairs = (
        []
        if matrix is None
        else [
            (value, matrix.labels[i], matrix.labels[j])
            for i, row in enumerate(matrix.values)
            for j, value in enumerate(row)
            if i != j and value is not None
        ]
    )
    if not pairs:
        return ""
    parts = [
        f"{word} from {short(source, 40)} to {short(target, 40)} ({number(value)})"
        for word, (value, source, target) in (("least", min(pairs)), ("most", max(pairs)))
    ]
    return f"Transfer is {parts[0]} and {parts[1]}."


def _as_sentence(text: str) -> str:
    """A capital first and a full stop last."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
