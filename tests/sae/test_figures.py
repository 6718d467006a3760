"""The figures' axes, units and lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from refusal.sae.figures import layer_figure, training_figure, write_png


def history(site: str = "mlp_3", *, fvu: float | None = 0.2, k: int = 8) -> dict[str, Any]:
    points = [
        {"step": i, "rows": 64 * (i + 1), "loss": 1 / (i + 1), "fvu": 1 / (i + 1), "l0": 8.0, "dead_features": i}
        for i in range(5)
    ]
    quality = {"n_rows": 9, "fvu": fvu, "explained_variance": fvu, "cosine": 0.9, "l0": 8.0, "dead_fraction": 0.1}
    own = {"schema_version": 1, "model": "tiny $x$", "site": site, "hidden_dim": 64, "k": k}
    return {**own, "train": points, "heldout": {"all": quality, "last": {**quality, "fvu": 0.1}}}


def test_a_training_has_four_panels_with_units():
    axes = training_figure(history()).axes
    assert [ax.get_title(loc="left") for ax in axes] == [
        "Loss",
        "Fraction of variance unexplained (FVU)",
        "L0",
        "Dead features",
    ]
    assert {ax.get_xlabel() for ax in axes} == {"training step"}
    assert [ax.get_ylabel() for ax in axes] == [
        "squared error, unit variance",
        "share of variance",
        "active features a row",
        "features",
    ]
    assert [ax.get_yscale() for ax in axes] == ["log", "log", "linear", "linear"]
    assert np.asarray(axes[0].lines[0].get_ydata()).tolist() == [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]
    labels = [line.get_label() for line in axes[1].lines]
    assert labels == ["training batch", "held-out, all positions", "held-out, last prompt position"]
    assert np.asarray(axes[1].lines[1].get_ydata()).tolist() == [0.2, 0.2]


def test_figures_without_a_value_are_left_out(tmp_path: Path):
    empty = {**history(fvu=None), "train": [{"step": 0, "loss": 0.0, "fvu": None, "l0": 0.0, "dead_features": 0}]}
    figure = training_figure(empty)
    assert [line.get_label() for line in figure.axes[1].lines] == ["held-out, last prompt position"]
    assert write_png(figure, tmp_path / "a.png").stat().st_size > 1000
    write_png(training_figure({**empty, "train": []}), tmp_path / "b.png")
    write_png(layer_figure("tiny", [history(fvu=None)]), tmp_path / "c.png")


def test_layers_are_compared_by_kind_of_site():
    histories = [history(f"{kind}_{layer}") for kind in ("mlp", "attention") for layer in (2, 0, 1)]
    axes = layer_figure("tiny", histories).axes
    assert [line.get_label() for line in axes[0].lines] == ["attention", "mlp"]
    assert np.asarray(axes[0].lines[0].get_xdata()).tolist() == [0, 1, 2]
    assert {ax.get_xlabel() for ax in axes} == {"layer"}


def test_each_size_has_its_own_line():
    axes = layer_figure("tiny", [history(k=8), history(k=16, fvu=0.1)]).axes
    labels = [line.get_label() for line in axes[0].lines]
    assert labels == ["mlp, 64 features, k = 8", "mlp, 64 features, k = 16"]
