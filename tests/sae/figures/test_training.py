"""The axes, units and lines of a training's picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from refusal.sae.figures.training import training_figure
from refusal.style import save_png
from tests.sae.figures.made_up import history


def test_a_training_has_four_panels_with_units():
    axes = training_figure(history()).axes
    assert [ax.get_title(loc="left") for ax in axes] == ["Loss", "Variance unexplained (FVU)", "L0", "Dead features"]
    assert {ax.get_xlabel() for ax in axes} == {"training step"}
    assert [ax.get_ylabel() for ax in axes] == [
        "squared error, unit variance",
        "share of variance",
        "active features a row",
        "features",
    ]
    assert [ax.get_yscale() for ax in axes] == ["log", "log", "linear", "linear"]
    assert np.asarray(axes[0].lines[0].get_ydata()).tolist() == [1, 0.1, 0.01, 0.001, 0.0001]
    labels = [line.get_label() for line in axes[1].lines]
    assert labels == ["training batch", "held-out, all positions", "held-out, last prompt position"]
    assert np.asarray(axes[1].lines[1].get_ydata()).tolist() == [0.2, 0.2]


def test_the_title_says_what_was_trained():
    title = training_figure(history(name="jumprelu", part="toxic", seed=3)).get_suptitle()
    assert title == "tiny $x$, mlp_3: jumprelu, toxic prompts, 64 features, k = 8, seed 3"
    assert training_figure({**history(), "k": None}).get_suptitle() == "tiny $x$, mlp_3: 64 features"


def test_figures_without_a_value_are_left_out(tmp_path: Path):
    empty = {**history(fvu=None), "train": [{"step": 0, "loss": 0.0, "fvu": None, "l0": 0.0, "dead_features": 0}]}
    figure = training_figure(empty)
    assert [line.get_label() for line in figure.axes[1].lines] == ["held-out, last prompt position"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["nothing recorded"]
    assert save_png(figure, tmp_path / "a.png").stat().st_size > 1000
    save_png(training_figure({**empty, "train": [], "heldout": {}}), tmp_path / "b.png")
