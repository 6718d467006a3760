"""Which matrices can be explored, and that each value stands where its two categories are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from refusal.report.blocks import View
from refusal.report.explore import cross_view, similarity_view, transfer_view, within_view
from refusal.report.study import Study
from tests.report.fixture import FOUR

Studies = dict[str, Study]


def page(view: View | None, *keys: str) -> dict[str, Any]:
    assert view is not None
    (found,) = [one for one in view.data["pages"] if tuple(one["keys"]) == keys]
    return found


def test_every_measure_of_every_site_can_be_chosen(studies: Studies) -> None:
    view = similarity_view(studies["planted"], "similarity.png")
    assert view is not None
    measures, sites, values = (
        list(dict.fromkeys(keys)) for keys in zip(*(p["keys"] for p in view.data["pages"]), strict=True)
    )
    assert measures == ["Cosine of importances", "Weighted Jaccard", "Jaccard of nodes", "Overlap of subspaces"]
    assert sites == [
        "all compared",
        *(f"{kind}_{layer}" for layer in range(3) for kind in ("attention", "mlp", "residuals")),
    ]
    assert values == ["as measured", "over the ceiling"]
    assert len(view.data["pages"]) == 4 * 10 * 2


def test_values_are_those_of_the_comparison(studies: Studies) -> None:
    study = studies["planted"]
    shown = page(similarity_view(study, ""), "Weighted Jaccard", "mlp_1", "as measured")
    expected = next(s for s in study.comparison["sites"] if s["site"] == "mlp_1")["measures"]["weighted_jaccard"]
    for row, own in zip(shown["values"], expected["matrix"], strict=True):
        assert row == pytest.approx(own, rel=1e-3)
    assert shown["ceiling"] == pytest.approx(expected["ceiling"])


def test_a_matrix_of_those_that_vote_has_undefined_cells_for_the_others(studies: Studies) -> None:
    study = studies["noisy"]
    votes = [FOUR.index(name) for name in study.comparison["voting"]]
    small = {
        **study.direct,
        "by_start": [],
        "matrix": [[1.0, 0.2, 0.3], [0.4, 1.0, 0.5], [0.6, 0.7, 1.0]],
        "drops": None,
    }
    transfer = {"direct": small, "circuit": None, "window": None}
    view = transfer_view(replace(study, comparison={**study.comparison, "transfer": transfer}), "")
    shown = page(view, "Directions (the index)", "10", "share of own fall")
    assert [[shown["values"][i][j] for j in votes] for i in votes] == small["matrix"]
    assert [row[2] for row in shown["values"]] == [None] * 4
    assert shown["values"][2] == [None] * 4
    assert view is not None
    assert view.data["marks"] == [FOUR[2]]


def test_orders_are_permutations_of_the_categories(studies: Studies) -> None:
    for case in ("planted", "noisy"):
        view = similarity_view(studies[case], "")
        assert view is not None
        numbers = list(range(len(view.data["categories"])))
        assert sorted(view.data["orders"]["clusters of transfer"]) == numbers
        assert all(sorted(one["order"]) == numbers for one in view.data["pages"])
        by_name = [view.data["categories"][c] for c in view.data["orders"]["by name"]]
        assert by_name == sorted(by_name)


def test_transfer_is_shown_as_shares_and_in_nats_from_every_layer_that_was_measured(studies: Studies) -> None:
    view = transfer_view(studies["planted"], "")
    assert view is not None
    assert view.data["pages"][0]["keys"] == ["Directions (the index)", "2", "share of own fall"]
    starts = [one["keys"][1] for one in view.data["pages"] if one["keys"][0] == "Directions (the index)"]
    assert list(dict.fromkeys(starts)) == ["2", "0", "1", "3", "4", "5"]  # that of the index first
    shares, nats = (page(view, "Directions (the index)", "2", shown) for shown in ("share of own fall", "fall, nats"))
    assert shares["top"] == 1.0
    assert nats["top"] == pytest.approx(9.1)
    assert nats["values"][0][1] == pytest.approx(9.1 * shares["values"][0][1], rel=1e-3)
    early = page(view, "Directions (the index)", "0", "share of own fall")
    assert early["caption"] == "knock-out from layer 0 on; not the index"


def test_hovering_says_p_of_both_tests(studies: Studies) -> None:
    view = similarity_view(studies["planted"], "")
    assert view is not None
    told = {note["name"]: note["values"][0][1] for note in view.data["notes"]}
    assert told == {"told apart, p": 0.001, "overlap above chance, p": 0.001}


def test_separate_circuits_within_a_side_and_across(studies: Studies) -> None:
    study = studies["planted"]
    within, cross = within_view(study, "separate.png"), cross_view(study, "cross.png")
    assert within is not None
    assert cross is not None
    assert [one["keys"] for one in within.data["pages"]] == [["safe prompts"], ["toxic prompts"]]
    assert page(within, "safe prompts")["caption"] == "overlap above chance: p = 0.41"
    assert cross.data["frame"] is True
    assert page(cross, "Safe against toxic")["values"][9] == [None] * 10
    assert (within.png, cross.png) == ("separate.png", "cross.png")


def test_a_side_without_circuits_says_so_in_the_place_of_an_empty_picture(studies: Studies) -> None:
    study = studies["planted"]
    nothing = {"matrix": [[None] * 10] * 10, "p": None}
    separate = {**study.comparison["separate"], "within_hard": nothing, "over_refusal": nothing}
    changed = replace(study, comparison={**study.comparison, "separate": separate})
    assert page(within_view(changed, ""), "hard prompts")["caption"].startswith("No category has a circuit on hard")
    assert page(cross_view(changed, ""), "Hard, refused, against toxic")["caption"].startswith("No category has a")
    assert page(cross_view(changed, ""), "Safe against toxic")["caption"].startswith("mean of the diagonal 0.")


def test_without_circuits_or_transfer_there_is_no_view(studies: Studies) -> None:
    study = studies["bare"]
    assert similarity_view(study, "") is None
    assert transfer_view(replace(study, comparison={**study.comparison, "transfer": None}), "") is None
