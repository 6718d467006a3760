"""What the charts show: every start and every curve, the chosen start set off, wild values at the edge."""

from __future__ import annotations

from typing import Any

import pytest

from refusal.report.blocks import View
from refusal.report.curves import faithfulness_view, index_view
from refusal.report.index_by_layer import HIGHEST, LOWEST
from refusal.report.study import Study
from tests.report.fixture import HOSTILE

Studies = dict[str, Study]


def chart(view: View | None, choice: str = "") -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The traces by name, and the layout."""
    assert view is not None
    found = view.data["choices"][choice]
    return {trace.get("name", "line"): trace for trace in found["traces"]}, found["layout"]


def test_each_start_is_once_on_the_chart_and_the_chosen_one_set_off(studies: Studies) -> None:
    traces, layout = chart(index_view(studies["planted"], "index.png"))
    assert traces["chosen"]["x"] == [2]
    assert traces["keeps half of the best fall"]["x"] == [0, 1]
    assert traces["own fall too small to divide by"]["x"] == [3, 4, 5]
    assert traces["line"]["x"] == [0, 1, 2]
    band = layout["shapes"][0]
    assert (band["x0"], band["x1"]) == (-0.5, 4.5)  # layers 0 to 4 of 6 have a vote
    assert [shape["y0"] for shape in layout["shapes"][1:4]] == [0.3, 0.7, pytest.approx(9.1 / 2)]


def test_an_interval_is_what_was_measured(studies: Studies) -> None:
    (step,) = [s for s in studies["planted"].direct["by_start"] if s["start"] == 2]
    trace = chart(index_view(studies["planted"], ""))[0]["chosen"]
    assert trace["y"][0] + trace["error_y"]["array"][0] == pytest.approx(step["high"])
    assert trace["y"][0] - trace["error_y"]["arrayminus"][0] == pytest.approx(step["low"])
    assert "own fall 9.10 nats" in trace["text"][0]


def test_wild_values_stand_at_the_edge_and_say_where_they_are(studies: Studies) -> None:
    traces, layout = chart(index_view(studies["noisy"], ""))
    bottom, top = layout["yaxis"]["range"]
    assert LOWEST <= bottom < top <= HIGHEST
    below = traces["the same, below"]
    assert (below["x"], below["y"]) == ([27], [bottom])
    assert "index -2.60" in below["text"][0]
    shown = [x for name, trace in traces.items() if name not in ("line", "own fall") for x in trace["x"]]
    assert sorted(shown) == [start for start in range(30) if start != 28]  # which has no index


def test_without_transfer_there_is_no_chart_and_without_a_start_none_is_set_off(studies: Studies) -> None:
    traces, layout = chart(index_view(studies["bare"], ""))
    assert traces["chosen"]["x"] == []
    assert not any(shape.get("x0") == shape.get("x1") for shape in layout["shapes"])


def test_one_curve_a_category_told_apart_without_colour_too(studies: Studies) -> None:
    view = faithfulness_view(studies["planted"])
    traces, _ = chart(view, "Faithfulness")
    assert list(traces) == studies["planted"].comparison["categories"]
    looks = {(trace["line"]["color"], trace["line"]["dash"]) for trace in traces.values()}
    assert len(looks) == 10
    assert traces["hate"]["x"] == [5, 460, 4617]
    assert traces["hate"]["y"] == [0.1, 0.8, 1.0]
    assert chart(view, "Completeness")[0]["hate"]["y"] == pytest.approx([0.9, 0.2, 0.0])
    assert view is not None
    assert view.data["csv"]["Faithfulness"][1] == ["deception", 5, 0.1, 0.9]


def test_a_name_cannot_be_markup_for_plotly(studies: Studies) -> None:
    view = faithfulness_view(studies["noisy"])
    names = list(chart(view, "Faithfulness")[0])
    assert not any(set("<>") & set(name) for name in names)
    assert any(name.startswith("&lt;script&gt;alert") for name in names)
    assert HOSTILE not in names


def test_a_study_without_curves_has_no_chart(studies: Studies) -> None:
    assert faithfulness_view(studies["bare"]) is None
