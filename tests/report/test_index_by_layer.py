from __future__ import annotations

from typing import Any

import numpy as np

from refusal.report.index_by_layer import HIGHEST, LOWEST, index_figure

Comparisons = dict[str, dict[str, Any]]


def test_thresholds_voting_range_and_chosen_start_are_marked(comparison: Comparisons):
    figure = index_figure(comparison["planted"])
    assert figure is not None
    top, below = figure.axes
    assert {0.3, 0.7} <= {float(y) for line in top.lines for y in np.asarray(line.get_ydata()).tolist()}
    shaded = top.patches[0].get_extents().transformed(top.transData.inverted())
    assert (round(shaded.x0, 3), round(shaded.x1, 3)) == (-0.5, 4.5)  # layers 0 to 4 of 6
    assert any(np.asarray(line.get_xdata()).tolist() == [2, 2] for line in top.lines)
    assert top.get_title(loc="left").startswith("Chosen: N = 2, index 0.5")
    assert below.get_ylabel() == "fall of own\nscore (nats)"
    words = {text.get_text() for text in top.texts}
    assert {"modular", "mixed", "monolithic"} <= words
    assert any(word.startswith("hollow") for word in words)
    hollow = [line for line in top.lines if line.get_marker() == "o" and line.get_markerfacecolor() == "none"]
    assert [np.asarray(line.get_xdata()).tolist() for line in hollow] == [[3], [4], [5]]  # a fifth of the best or less


def test_half_of_the_best_drop_is_marked(comparison: Comparisons):
    figure = index_figure(comparison["planted"])
    assert figure is not None
    assert any(np.allclose(np.asarray(line.get_ydata()).tolist(), 9.1 / 2) for line in figure.axes[1].lines)


def test_wild_values_stay_at_the_edge(comparison: Comparisons):
    figure = index_figure(comparison["noisy"])
    assert figure is not None
    top = figure.axes[0]
    bottom, highest = top.get_ylim()
    assert LOWEST <= bottom < 0
    assert 1 < highest <= HIGHEST
    arrows = [line for line in top.lines if line.get_marker() == "v"]
    assert [(np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()) for line in arrows] == [
        ([27], [bottom])
    ]


def test_starts_without_an_index_are_left_out(comparison: Comparisons):
    study = comparison["planted"]
    for step in study["transfer"]["direct"]["by_start"][3:]:
        step.update(index=None, low=None, high=None)
    figure = index_figure(study)
    assert figure is not None
    connected = [line for line in figure.axes[0].lines if len(np.asarray(line.get_xdata()).tolist()) == 3]
    assert np.asarray(connected[0].get_xdata()).tolist() == [0, 1, 2]


def test_without_a_chosen_start_or_without_transfer(comparison: Comparisons):
    figure = index_figure(comparison["bare"])
    assert figure is not None
    assert figure.axes[0].get_title(loc="left") == "No starting layer could be chosen"
    assert index_figure({**comparison["bare"], "transfer": None}) is None


def test_one_starting_layer(comparison: Comparisons):
    study = comparison["one_site"]
    study["transfer"]["direct"]["by_start"] = study["transfer"]["direct"]["by_start"][2:3]
    figure = index_figure(study)
    assert figure is not None
    assert figure.axes[0].get_xlim()[0] == 1.5
