from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from refusal.report.study import Study
from refusal.report.words import agrees, claims, doubts, extremes, over_refusal, sentence

VERDICT: dict[str, Any] = {
    "model": "m",
    "index": 0.987,
    "ci_low": 0.95,
    "ci_high": 1.0,
    "groups": [],
    "votes": list("abc"),
}


def changed(study: Study, **fields: Any) -> Study:
    return replace(study, verdict={**study.verdict, **fields})


@pytest.mark.parametrize(
    ("verdict", "start"),
    [
        ("monolithic", "m refuses by one mechanism"),
        ("modular", "m refuses by separate mechanisms, one for each harm category"),
        ("mixed", "m refuses by mechanisms that its harm categories share in part"),
        ("inconclusive", "Whether m refuses by one mechanism or by several, this study cannot say"),
    ],
)
def test_the_verdict_is_one_sentence_with_its_interval(verdict: str, start: str):
    text = sentence({**VERDICT, "verdict": verdict})
    assert text.startswith(start)
    assert text.endswith(": index 0.99, 95 % interval 0.95 to 1.00.")


def test_modular_between_groups():
    text = sentence({**VERDICT, "verdict": "modular", "groups": [["a", "b"], ["c"]]})
    assert "one for each of 2 groups of harm categories" in text


def test_without_an_index_there_is_none():
    assert sentence({**VERDICT, "verdict": "inconclusive", "index": None}).endswith("there is no index.")


def test_there_is_always_a_reason_for_doubt(studies: dict[str, Study]):
    assert doubts(studies["planted"]) == [
        "No check failed; none covers other prompts, other templates, or positions before the last token."
    ]
    assert "a single pair" in doubts(studies["one_site"])[0]


def test_doubts_of_a_noisy_study_start_with_why_it_is_inconclusive(studies: dict[str, Study]):
    found = doubts(studies["noisy"])
    assert found[0].startswith("The interval reaches from modular to monolithic")
    assert "About 140 more refused prompts" in found[0]
    for words in ("explains 29 %", "circuit reading disagrees", "area under the ROC of only 0.86", "3 of 4 categories"):
        assert any(words in doubt for doubt in found), words


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"explained_share": 1.4}, "it does damage"),
        ({"explained_share": 0.4}, "of the other 60 % the index says nothing"),
        ({"controls": {"random_share": 0.5, "kl_complied": 0.0}}, "Random directions"),
        ({"controls": {"random_share": 0.0, "kl_complied": 0.3}}, "KL 0.30 nats"),
    ],
)
def test_each_failed_check_is_a_doubt(studies: dict[str, Study], fields: dict[str, Any], words: str):
    assert any(words in doubt for doubt in doubts(changed(studies["planted"], **fields)))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"index": 0.9, "low": 0.8, "high": 1.0}, False),  # apart, and the intervals do not meet
        ({"index": 0.9, "low": 0.5, "high": 1.2}, True),  # the intervals meet
        ({"index": 0.62, "low": 0.61, "high": 0.63}, True),  # they do not, but the figures are close
        ({"index": 0.9, "low": None, "high": None}, False),
        ({"index": None, "low": None, "high": None}, None),
        (None, None),
    ],
)
def test_agreement_of_readings(other: dict[str, Any] | None, expected: bool | None):
    assert agrees({"index": 0.55, "low": 0.5, "high": 0.6}, other) is expected


@pytest.mark.parametrize(
    ("cosine", "start"),
    [
        (0.9, "Over-refusal is the same circuit as refusal: "),
        (0.5, "Over-refusal shares a part of the circuit of refusal: "),
        (0.1, "Over-refusal is another circuit than refusal: "),
    ],
)
def test_over_refusal_is_one_sentence_with_its_test(studies: dict[str, Study], cosine: float, start: str):
    study = studies["planted"]
    separate = {
        "over_refusal": {"matrix": [[cosine, 0.0], [0.0, cosine]], "p": 0.0002},
        "cross": {"matrix": [[0.2, 1.0], [1.0, 0.1]], "p": 0.6},
    }
    comparison = {**study.comparison, "categories": ["a", "b"], "voting": ["a", "b"], "separate": separate}
    text = over_refusal(replace(study, comparison=comparison))
    assert text.startswith(start)
    assert (
        f"a mean cosine of {cosine:.2f} (overlap above chance: p = 0.0002), that of safe and toxic prompts 0.15."
        in text
    )


def test_without_over_refusal_there_is_nothing_to_compare(studies: dict[str, Study]):
    assert over_refusal(studies["noisy"]) == ""  # no separate circuits
    study = studies["planted"]
    nothing = {**study.comparison["separate"], "over_refusal": {"matrix": [[None] * 10] * 10, "p": None}}
    text = over_refusal(replace(study, comparison={**study.comparison, "separate": nothing}))
    assert text.startswith("Over-refusal cannot be compared: no category has a circuit on hard prompts")


def test_the_result_is_placed_among_the_published_claims(studies: dict[str, Study]):
    says = {claim.split(" (")[0]: text for claim, _, text in claims(studies["planted"])}
    assert says["Distinct directions over a small shared core"] == "in line"
    assert says["One direction serves all categories"] == "not in line: mixed"
    assert {text.split(" (")[0] for _, _, text in claims(studies["noisy"])} == {"cannot say"}


def test_extremes_name_the_pairs(studies: dict[str, Study]):
    assert extremes(studies["one_site"]).startswith("Transfer is least from hate to violence (0.99)")
    nothing = replace(studies["bare"], comparison={**studies["bare"].comparison, "transfer": None})
    assert extremes(nothing) == ""
