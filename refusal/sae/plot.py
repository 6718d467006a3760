"""Draw trained autoencoders from the files on disk: ``python -m refusal.sae.plot``.

A training's curves go into its own folder; for each model a comparison of its layers and FVU against L0 into
OUTPUT_DIR/MODEL/saes.

Examples:
    python -m refusal.sae.plot                        every model under outputs/
    python -m refusal.sae.plot --model planted        one model
    python -m refusal.sae.plot --model planted --pareto
                                                      only its FVU against L0
    python -m refusal.sae.plot --history FILE         one training, from its history.json
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refusal import InputError
from refusal.arguments import Parser, command
from refusal.sae.history import HISTORY, Trained, find_trained, read_history


def draw_training(history: Mapping[str, Any], folder: Path) -> Path:
    """Draw ``training_plots/training.png`` into the folder of a training; return its path."""
    from refusal.sae.figures.training import training_figure
    from refusal.style import save_png

    return save_png(training_figure(history), folder / "training_plots" / "training.png")


def draw_layers(model: Path, trained: Sequence[Trained]) -> Path:
    """Draw ``saes/layer_comparison.png`` into a model's folder; return its path."""
    from refusal.sae.figures.layers import layer_figure
    from refusal.style import save_png

    return save_png(layer_figure(model.name, trained), model / "saes" / "layer_comparison.png")


def draw_pareto(model: Path, trained: Sequence[Trained]) -> Path:
    """Draw ``saes/pareto.png`` into a model's folder; return its path."""
    from refusal.sae.figures.pareto import pareto_figure
    from refusal.style import save_png

    title = f"{model.name}: FVU against L0, on held-out prompts"
    return save_png(pareto_figure(title, trained), model / "saes" / "pareto.png")


@command
def main(arguments: Sequence[str] | None) -> int:
    """Run the command; return its exit status."""
    about, examples = (__doc__ or "").split("Examples:")
    parser = Parser("refusal.sae.plot", about.strip().replace("``", ""), f"examples:{examples}")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs"), help="where results are (outputs)")
    parser.add_argument("--pareto", action="store_true", help="only FVU against L0 of each model")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", help="only this model: a folder's name under the output directory")
    which.add_argument("--history", type=Path, help="only this training: its history.json")
    options = parser.parse_args(arguments)
    if options.history is not None:
        if options.pareto:
            parser.error("--pareto compares trainings, and --history is only one")
        print(draw_training(read_history(options.history), options.history.parent))
        return 0
    for model in _models(options.output_dir, options.model):
        trained = find_trained(model)
        for one in () if options.pareto else trained:
            print(draw_training(one.history, one.folder))
        if not options.pareto:
            print(draw_layers(model, trained))
        print(draw_pareto(model, trained))
    return 0


def _models(output: Path, model: str | None) -> list[Path]:
    models = sorted({path.parents[3] for path in output.glob(f"*/saes/*/*/{HISTORY}")})
    if model is not None:
        if output / model not in models:
            known = ", ".join(path.name for path in models) or "none"
            raise InputError(f"{output} has no trainings of the model '{model}'; it has: {known}")
        return [output / model]
    if not models:
        raise InputError(
            f"there are no trained autoencoders in {output}; train them with train.py, or name --output-dir"
        )
    return models


if __name__ == "__main__":
    sys.exit(main())
