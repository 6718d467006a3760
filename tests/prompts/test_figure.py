from __future__ import annotations

import warnings

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text

from refusal.prompts.figure import COLOURS, png, split_figure
from refusal.prompts.prompt import SPLITS, make_prompts
from refusal.prompts.statistics import split_statistics

LONG = "weapons of the improvised kind, with a name that goes on and on and on and does not come to an end"
COUNTS = {"hate": (1250, 30, 10), LONG: (16_083, 0, 1), "$a_b$ <b>": (1, 2, 3000)}


@pytest.fixture(scope="module")
def figure() -> Figure:
    rows = [
        (f"{i}", name, s)
        for name, sizes in COUNTS.items()
        for s, n in zip(SPLITS, sizes, strict=True)
        for i in range(n)
    ]
    figure = split_figure(split_statistics(make_prompts(rows)))
    FigureCanvasAgg(figure).draw()  # everything gets its place
    return figure


def test_every_count_has_its_bar_on_a_log_axis(figure: Figure) -> None:
    counts = figure.axes[0]
    assert counts.get_xscale() == "log"
    bars = [bar for bar in counts.containers if isinstance(bar, BarContainer)]
    names = sorted(COUNTS)
    for i, (split, container) in enumerate(zip(SPLITS, bars, strict=True)):
        assert [bar.get_width() for bar in container] == [COUNTS[name][i] for name in names]
        assert {to_hex(bar.get_facecolor()) for bar in container} == {COLOURS[split]}
    assert counts.get_xlim()[0] < 1  # a single prompt can be seen
    legend = counts.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(SPLITS)


def test_the_share_is_in_per_cent_and_low_ones_are_marked(figure: Figure) -> None:
    share = figure.axes[1]
    (bars,) = (bar for bar in share.containers if isinstance(bar, BarContainer))
    # 3000 / 3003, 10 / 1290, 1 / 16084
    assert [bar.get_width() for bar in bars] == pytest.approx([99.9001, 0.77519, 0.0062174], rel=1e-4)
    texts = [text.get_text() for text in share.texts]
    assert texts == ["99.9%", "0.8% (low)", "0.0% (low)", "low: under 10%"]
    assert max(share.get_xticks()) <= 100


def test_every_axis_says_what_it_shows(figure: Figure) -> None:
    counts, share = figure.axes
    assert counts.get_xlabel() == "prompts (log scale)"
    assert counts.get_ylabel() == "category"
    assert share.get_xlabel() == "toxic / (safe + hard + toxic), %"
    assert figure.get_suptitle() == "20,377 prompts: 17,334 safe, 32 hard, 3,011 toxic"


def test_names_are_data_and_the_longest_fits(figure: Figure) -> None:
    labels = figure.axes[0].get_yticklabels()
    assert [label.get_text().split("\n")[0] for label in labels] == ["$a_b$ <b>", "hate", "weapons of the improvised"]
    assert len(labels[2].get_text().split("\n")) == 3
    assert not any(label.get_parse_math() for label in labels)


def test_no_words_lie_over_each_other_or_outside(figure: Figure) -> None:
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts: list[Text] = [text for axes in figure.axes for text in axes.texts]
    texts += figure.axes[0].get_yticklabels()
    boxes = [text.get_window_extent(renderer) for text in texts]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1 + 1
        assert not any(box.overlaps(other) for other in boxes[:i]), texts[i].get_text()
    line = next(line for line in figure.axes[1].lines if line.get_linestyle() == "--").get_window_extent(renderer)
    assert not any(text.get_window_extent(renderer).overlaps(line) for text in figure.axes[1].texts[1:3])


def test_a_name_in_another_script_makes_no_noise() -> None:
    statistics = split_statistics(make_prompts([("x", "\u66b4\u529b", "toxic")]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert png(split_figure(statistics)).startswith(b"\x89PNG")


def test_the_same_statistics_make_the_same_file() -> None:
    statistics = split_statistics(make_prompts([("x", "a", "toxic"), ("x", "a", "safe")]))
    assert png(split_figure(statistics)) == png(split_figure(statistics))
