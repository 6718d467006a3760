"""Layers side by side, whatever was trained there."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from refusal.sae.figures.layers import layer_figure
from refusal.style import save_png
from tests.sae.figures.made_up import history, write


def test_each_kind_of_site_has_a_row_of_panels(tmp_path: Path):
    sites = [f"{kind}_{layer}" for kind in ("mlp", "attention") for layer in (2, 0, 1)]
    figure = layer_figure("tiny", [write(tmp_path / site, history(site)) for site in sites])
    titles = ["attention: Variance unexplained (FVU)", "mlp: Variance unexplained (FVU)"]
    assert [figure.axes[i].get_title(loc="left") for i in (0, 3)] == titles
    assert np.asarray(figure.axes[0].lines[0].get_xdata()).tolist() == [0, 1, 2]
    assert {ax.get_xlabel() for ax in figure.axes} == {"layer"}
    assert not figure.legends  # one way of training needs no name


def test_a_way_of_training_is_a_line_named_by_what_tells_it_from_the_others(tmp_path: Path):
    trained = [
        write(tmp_path / "a", history(k=8)),
        write(tmp_path / "b", history(k=16)),
        write(tmp_path / "c", history(k=8), sampler="weighted"),
        write(tmp_path / "d", history(k=8, part="toxic")),
    ]
    (legend,) = layer_figure("tiny", trained).legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "all prompts, k = 8, sampler uniform",
        "all prompts, k = 16, sampler uniform",
        "all prompts, k = 8, sampler weighted",
        "toxic prompts, k = 8, sampler uniform",
    ]


def test_seeds_are_one_line_through_their_median_with_bars_to_the_extremes(tmp_path: Path):
    values = {0: 0.1, 1: 0.2, 2: 0.6}
    trained = [write(tmp_path / f"{seed}", history(fvu=fvu, seed=seed), seed=seed) for seed, fvu in values.items()]
    ax = layer_figure("tiny", trained).axes[0]
    assert np.asarray(ax.lines[0].get_ydata()).tolist() == [0.2]
    (bars,) = ax.collections
    assert bars.get_segments()[0][:, 1].tolist() == [0.1, 0.6]  # type: ignore[attr-defined]


def test_nothing_measured_is_a_picture_that_says_so(tmp_path: Path):
    figure = layer_figure("tiny", [write(tmp_path / "a", history(fvu=None))])
    assert [text.get_text() for text in figure.axes[0].texts] == ["nothing recorded"]
    assert save_png(figure, tmp_path / "a.png").stat().st_size > 1000
