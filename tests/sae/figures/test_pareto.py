"""FVU against L0."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal.sae.figures.pareto import MOST_SITES, Point, frontier, pareto_figure
from refusal.style import save_png
from tests.sae.figures.made_up import history, write

POINTS = st.lists(st.builds(Point, st.integers(1, 9), st.integers(1, 9), st.just("a")), min_size=1)


@given(POINTS)
def test_the_frontier_is_what_no_other_point_beats(points: list[Point]):
    beaten = {one for one in points for other in points if other != one and other.l0 <= one.l0 and other.fvu <= one.fvu}
    assert frontier(points) == sorted(set(points) - beaten)


def test_a_line_joins_what_differs_in_k_and_is_named_by_the_rest(tmp_path: Path):
    trained = [
        write(tmp_path / f"{k}-{dim}", history(k=k, fvu=1 / k / dim, hidden_dim=dim))
        for dim in (64, 128)
        for k in (8, 4)
    ]
    figure = pareto_figure("tiny", trained)
    (ax,) = figure.axes
    assert ax.get_title(loc="left") == "mlp_3"
    narrow, wide, *_ = ax.lines
    assert (narrow.get_label(), wide.get_label()) == ("64 features", "128 features")
    assert narrow.get_xydata().tolist() == [[4, 1 / 4 / 64], [8, 1 / 8 / 64]]  # type: ignore[union-attr]
    rings = ax.lines[-1]
    assert rings.get_label() == "frontier"
    assert rings.get_xydata().tolist() == wide.get_xydata().tolist()  # type: ignore[union-attr]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("L0, active features a row", "FVU, share of variance")


def test_parts_of_the_prompts_have_panels_of_their_own(tmp_path: Path):
    trained = [write(tmp_path / part, history(part=part)) for part in ("all", "toxic")]
    axes = pareto_figure("tiny", trained).axes
    assert [ax.get_title(loc="left") for ax in axes] == ["mlp_3", "mlp_3, toxic prompts"]


def test_many_sites_are_one_panel_a_kind_with_medians_over_layers(tmp_path: Path):
    trained = [
        write(tmp_path / f"{kind}-{layer}", history(f"{kind}_{layer}", fvu=0.1 * (layer + 1)))
        for kind in ("mlp", "residuals")
        for layer in range(MOST_SITES // 2 + 1)
    ]
    mlp, residuals = pareto_figure("tiny", trained).axes
    assert mlp.get_title(loc="left") == "mlp (median of 5 layers)"
    assert residuals.lines[0].get_xydata().tolist() == [[8, pytest.approx(0.3)]]  # type: ignore[union-attr]


def test_an_autoencoder_that_was_not_measured_has_no_point(tmp_path: Path):
    figure = pareto_figure("tiny", [write(tmp_path / "a", history(fvu=None))])
    assert save_png(figure, tmp_path / "a.png").stat().st_size > 1000
    assert not len(figure.axes[0].lines[0].get_xdata())  # type: ignore[arg-type]
