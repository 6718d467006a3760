from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from refusal.report.heatmaps import cross_heatmap, draw_heatmaps, separate_heatmap, similarity_heatmap
from tests.report.fixture import HOSTILE

Comparisons = dict[str, dict[str, Any]]


def texts(figure: Figure) -> list[str]:
    """Every text of a figure outside its axes."""
    return [text.get_text() for text in figure.texts]


def matrices(figure: Figure) -> list[Any]:
    """The axes that hold cells."""
    return [axes for axes in figure.axes if axes.images]


def test_similarity_stands_beside_transfer_with_the_ceiling_between(comparison: Comparisons):
    figure = similarity_heatmap(comparison["planted"])
    left, ceiling, right = matrices(figure)
    assert left.images[0].get_array().shape == right.images[0].get_array().shape == (10, 10)
    assert ceiling.images[0].get_array().shape == (10, 1)
    assert [label.get_text() for label in ceiling.get_xticklabels()] == ["noise ceiling"]
    assert right.get_xlabel() == "refusal tested on"
    assert right.get_ylabel() == "knocked out"
    assert "Causal transfer" in texts(figure)
    assert "knock-out from layer 2 on" in texts(figure)


@pytest.mark.parametrize("case", ["planted", "noisy", "one_site", "bare"])
def test_the_colour_scale_is_fixed(comparison: Comparisons, case: str):
    for axes in matrices(similarity_heatmap(comparison[case])):
        assert axes.images[0].get_clim() == (0, 1)


def test_each_cell_says_its_value_in_the_order_of_the_labels(comparison: Comparisons):
    study = comparison["planted"]
    left = matrices(similarity_heatmap(study))[0]
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names == [label.get_text() for label in left.get_xticklabels()]
    values = study["combined"]["measures"]["cosine"]["matrix"]
    place = study["categories"].index
    expected = [f"{values[place(a)][place(b)]:.2f}" for a in names for b in names]
    assert [text.get_text() for text in left.texts] == expected


def test_both_matrices_have_the_same_order_and_groups_are_neighbours(comparison: Comparisons):
    left, _, right = matrices(similarity_heatmap(comparison["planted"]))
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names == [label.get_text() for label in right.get_yticklabels()]
    group = dict(zip(comparison["planted"]["categories"], [0, 1, 0, 2, 1, 0, 2, 1, 0, 2], strict=True))
    changes = sum(group[a] != group[b] for a, b in pairwise(names))
    assert changes == 2  # three groups in a row


def test_undefined_cells_are_masked_and_show_a_dash(comparison: Comparisons):
    left = matrices(similarity_heatmap(comparison["noisy"]))[0]
    row = [label.get_text() for label in left.get_yticklabels()].index("fraud *")
    assert left.images[0].get_array().mask[row].all()
    assert [text.get_text() for text in left.texts[4 * row : 4 * row + 4]] == ["–"] * 4


def test_a_category_without_vote_is_marked_and_the_mark_explained(comparison: Comparisons):
    figure = similarity_heatmap(comparison["noisy"])
    assert any("* has no vote" in text for text in texts(figure))
    assert not any("no vote" in text for text in texts(similarity_heatmap(comparison["planted"])))


def test_names_are_text_never_formulas(comparison: Comparisons, tmp_path: Path):
    study = comparison["noisy"]
    study["categories"] = [r"$\frac{$", *study["categories"][1:]]
    study["voting"] = study["categories"]
    assert draw_heatmaps(study, tmp_path)[0].stat().st_size > 10_000  # a formula would raise


def test_a_study_without_circuits_says_so(comparison: Comparisons):
    figure = similarity_heatmap(comparison["bare"])
    assert len(matrices(figure)) == 1
    assert any("Circuits: cosine of importances: not in this study." in text for text in texts(figure))


def test_separate_and_cross_heatmaps_say_their_p_and_how_to_read_them(comparison: Comparisons):
    assert {"Circuits of safe prompts", "Circuits of toxic prompts", "overlap above chance: p = 0.41"} <= set(
        texts(separate_heatmap(comparison["planted"]))
    )
    cross = cross_heatmap(comparison["planted"])
    (axes,) = matrices(cross)
    assert axes.get_ylabel() == "circuit of safe prompts"
    assert len(axes.patches) == 10  # the framed diagonal
    assert any("Over 0.7" in text and "under 0.3" in text for text in texts(cross))


def test_where_safe_prompts_have_no_circuit_a_sentence_says_so(comparison: Comparisons):
    study = comparison["planted"]
    nothing = [[None] * 10 for _ in range(10)]
    study["separate"]["within_safe"] = {"matrix": nothing, "ceiling": [None] * 10, "p": None}
    study["separate"]["cross"] = {"matrix": nothing, "p": None}
    separate, cross = separate_heatmap(study), cross_heatmap(study)
    assert len(matrices(separate)) == 2  # the toxic side and its ceiling
    assert matrices(cross) == []
    for figure in (separate, cross):
        assert "No category has a circuit on safe prompts" in " ".join(" ".join(texts(figure)).split())


def test_the_files_are_named_by_the_model(comparison: Comparisons, tmp_path: Path):
    comparison["planted"]["model"] = "a/../b"
    names = {path.name for path in draw_heatmaps(comparison["planted"], tmp_path)}
    stems = ("similarity_heatmap", "safe_toxic_separate_heatmap", "safe_vs_toxic_cross_heatmap")
    assert len(names) == 3
    assert all("/" not in name and any(name.endswith(f"{stem}.png") for stem in stems) for name in names)
    assert len(draw_heatmaps(comparison["one_site"], tmp_path / "one")) == 1


@pytest.mark.parametrize("case", ["planted", "noisy", "one_site", "bare"])
def test_no_text_runs_over_the_edge_of_the_picture(comparison: Comparisons, case: str):
    figure = similarity_heatmap(comparison[case])
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).draw()
    width, height = figure.bbox.width, figure.bbox.height
    labels = [
        label for axes in figure.axes for label in (*axes.get_xticklabels(), *axes.get_yticklabels(), *axes.texts)
    ]
    for text in (*figure.texts, *labels):
        box = text.get_window_extent()
        assert box.x0 >= 0, text
        assert box.x1 <= width, text
        assert box.y0 >= 0, text
        assert box.y1 <= height, text


def test_hostile_names_are_cut(comparison: Comparisons):
    labels = [label.get_text() for label in matrices(similarity_heatmap(comparison["noisy"]))[0].get_yticklabels()]
    assert HOSTILE not in labels
    assert any(label.startswith("<script>") and label.endswith("…") for label in labels)
