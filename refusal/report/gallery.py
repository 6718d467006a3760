"""Several studies in one picture, side by side: ``python -m refusal.report.gallery FOLDER... --output PICTURE.png``.

Each FOLDER is a model's folder, such as ``outputs/planted``. A column says the verdict, the index with its interval and
(for a planted model) the truth, then who stops whom, then the index by layer. The README's picture is made by:

    python -m refusal.report.gallery outputs/planted outputs/planted_m0.5 outputs/planted_m1
        --output docs/images/verdict.png
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refusal import InputError
from refusal.arguments import Parser, command
from refusal.artifacts import read_json
from refusal.progress import say
from refusal.report.blocks import interval, number
from refusal.report.heatmaps import draw_cells
from refusal.report.index_by_layer import draw_index, name_zones, works
from refusal.report.matrices import Matrix, read_matrix, short
from refusal.report.study import Study, find, read_study
from refusal.style import INK, LINE, MUTED, ORANGE, save_png, scale, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Exhibit:
    """One study, and its true index where the model was built to have one."""

    study: Study
    truth: float | None = None


def read_exhibit(folder: Path) -> Exhibit:
    """Return the latest study of a model's folder.

    Raises:
        InputError: There is none, it is damaged, or it measured no transfer.
    """
    study = read_study(find(folder))
    if read_matrix(study.direct, study.comparison) is None:
        raise InputError(f"the study in {folder} measured no causal transfer, so there is nothing to show")
    found = sorted(Path(folder).glob("model/*/truth.json"))
    if len(found) != 1:  # of a model that was not planted, or of one that was built in several ways
        return Exhibit(study)
    written = read_json(found[0])
    truth = Matrix(tuple(written["categories"]), tuple(tuple(row) for row in written["transfer"]))
    apart, own = truth.mean_off_diagonal(), truth.mean_diagonal()
    return Exhibit(study, None if apart is None or not own else apart / own)


def gallery_figure(exhibits: Sequence[Exhibit]) -> Figure:
    """Return the picture, a column a study."""
    from matplotlib.figure import Figure

    known = all(exhibit.truth is not None for exhibit in exhibits)
    title = "Models whose answer is known, and what refusal-circuits finds" if known else "What refusal-circuits finds"
    with styled():
        figure = Figure(figsize=(1.6 + 2.75 * len(exhibits), 5.9), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", size=13, weight="bold")
        grid = figure.subplots(2, len(exhibits), squeeze=False, height_ratios=(1.75, 1))
        shown: tuple[str, ...] = ()
        for column, exhibit in enumerate(exhibits):
            shown = _transfer(grid[0, column], exhibit, shown)
            _by_layer(grid[1, column], exhibit.study, first=column == 0)
        name_zones(grid[1, -1])
        _key(figure, grid[0, -1])
    return figure


def _transfer(axes: Axes, exhibit: Exhibit, shown: tuple[str, ...]) -> tuple[str, ...]:
    """The verdict over the transfer matrix, which says it at a glance: all dark, half dark, or only the diagonal.

    Returns the categories; they are named where they are not those of the column before.
    """
    verdict, matrix = exhibit.study.verdict, read_matrix(exhibit.study.direct, exhibit.study.comparison)
    assert matrix is not None
    draw_cells(axes, matrix.values, numbers=False)
    axes.set_aspect("equal")
    names = [short(name, 14) for name in matrix.labels] if matrix.labels != shown else []
    axes.set_yticks(range(len(names)), names, size=8.5)
    axes.set_xticks([])
    axes.set_xlabel("does this category still refuse?", size=9, color=MUTED)
    axes.set_ylabel("knock this category out:" if names else "", size=9, color=MUTED)
    lines = [
        short(verdict["model"], 26),
        "" if exhibit.truth is None else f"written into its weights: {number(exhibit.truth)}",
        f"found: {number(verdict.get('index'))} ({interval(verdict.get('ci_low'), verdict.get('ci_high'))})",
    ]
    lines = [line for line in lines if line]
    axes.set_title("\n".join(lines), weight="normal", size=9.5, linespacing=1.35)
    axes.annotate(
        verdict["verdict"],
        (0, 1),
        xytext=(0, 8 + 13 * len(lines)),
        xycoords="axes fraction",
        textcoords="offset points",
        size=15,
        weight="bold",
        color=MUTED if verdict["verdict"] == "inconclusive" else ORANGE,
    )
    return matrix.labels


def _by_layer(axes: Axes, study: Study, *, first: bool) -> None:
    """The index by starting layer, where it means something."""
    from matplotlib.ticker import MaxNLocator

    steps: list[dict[str, Any]] = study.direct["by_start"]
    last, n_layers = study.comparison["last_voting_layer"], study.comparison["n_layers"]
    axes.axvspan(-0.5, last + 0.5, color=LINE, alpha=0.45, linewidth=0)
    draw_index(axes, [step for step in steps if works(step, steps)], study.direct.get("start"))
    axes.set_xlim(-0.5, n_layers - 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.set_xlabel("first layer knocked out", size=9, color=MUTED)
    if first:
        axes.set_ylabel("index", size=9, color=INK)


def _key(figure: Figure, axes: Axes) -> None:
    """The scale, in words."""
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(ScalarMappable(cmap=scale()), ax=axes, ticks=[0, 0.5, 1], shrink=0.75, aspect=16)
    bar.ax.set_yticklabels(["0: yes", "0.5", "1: no,\nas if its own\nwere gone"], size=8.5)
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)  # type: ignore[operator]


@command
def main(arguments: Sequence[str] | None) -> int:
    """Run the command line; return the exit status."""
    parser = Parser("refusal.report.gallery", "Put finished studies side by side in one picture.")
    parser.add_argument("folders", nargs="+", type=Path, help="models' folders, such as outputs/planted")
    parser.add_argument("--output", type=Path, required=True, help="the PNG file to write")
    options = parser.parse_args(arguments)
    path = save_png(gallery_figure([read_exhibit(folder) for folder in options.folders]), options.output)
    say("gallery", "built", path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
