"""Redraw training plots from the histories on disk: ``python -m refusal.sae.plot``.

Examples:
    python -m refusal.sae.plot                        every model under outputs/
    python -m refusal.sae.plot --model planted        one model, with a comparison of its layers
    python -m refusal.sae.plot --history FILE         one training, from its history.json
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from refusal import InputError
from refusal.arguments import Parser, command
from refusal.artifacts import read_json

KEYS = ("model", "site", "hidden_dim", "k", "train", "heldout")


def draw_training(history: Path) -> Path:
    """Draw ``training_plots/training.png`` beside a history; return its path.

    Raises:
        InputError: There is no such file, or it is not a training's history.
    """
    return _draw(read_history(history), history.parent)


def draw_model(folder: Path) -> list[Path]:
    """Draw the trainings of a model, and ``saes/layer_comparison.png``; return the paths.

    Args:
        folder: The model's folder under ``outputs``.

    Raises:
        InputError: It has no trainings.
    """
    from refusal.sae.figures import layer_figure, write_png

    files = sorted(folder.glob("saes/*/*/history.json"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise InputError(f"there are no trained autoencoders in {folder / 'saes'}; train them with train.py")
    histories = [read_history(path) for path in files]
    paths = [_draw(history, path.parent) for history, path in zip(histories, files, strict=True)]
    figure = layer_figure(folder.name, histories)
    return [*sorted(paths), write_png(figure, folder / "saes" / "layer_comparison.png")]


def read_history(path: Path) -> dict[str, Any]:
    """Read a ``history.json``.

    Raises:
        InputError: There is no such file, or it is not a training's history.
    """
    history = read_json(path)
    missing = [key for key in KEYS if key not in history] if isinstance(history, dict) else list(KEYS)
    if missing:
        raise InputError(f"{path} is not the history of a training: it lacks {', '.join(missing)}")
    return history


@command
def main(arguments: Sequence[str] | None) -> int:
    """Run the command; return its exit status."""
    about, examples = (__doc__ or "").split("Examples:")
    parser = Parser("refusal.sae.plot", about.strip().replace("``", ""), f"examples:{examples}")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs"), help="where results are (outputs)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", help="only this model: a folder's name under the output directory")
    which.add_argument("--history", type=Path, help="only this training: its history.json")
    options = parser.parse_args(arguments)
    for path in _run(options.output_dir, options.model, options.history):
        print(path)
    return 0


def _run(output: Path, model: str | None, history: Path | None) -> list[Path]:
    if history is not None:
        return [draw_training(history)]
    models = sorted({path.parents[3] for path in output.glob("*/saes/*/*/history.json")})
    if model is not None:
        if output / model not in models:
            known = ", ".join(path.name for path in models) or "none"
            raise InputError(f"{output} has no trainings of the model '{model}'; it has: {known}")
        return draw_model(output / model)
    if not models:
        raise InputError(
            f"there are no trained autoencoders in {output}; train them with train.py, or name --output-dir"
        )
    return [path for folder in models for path in draw_model(folder)]


def _draw(history: dict[str, Any], folder: Path) -> Path:
    from refusal.sae.figures import training_figure, write_png

    return write_png(training_figure(history), folder / "training_plots" / "training.png")


if __name__ == "__main__":
    sys.exit(main())
