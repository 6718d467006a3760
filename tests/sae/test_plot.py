"""The command that redraws training plots."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from refusal.artifacts import write_json
from refusal.sae.plot import main
from tests.sae.figures.made_up import history


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    for model, site in (("tiny", "mlp_0"), ("tiny", "mlp_1"), ("other", "residuals_0")):
        write_json(tmp_path / model / "saes" / site / "topk-abc" / "history.json", history(site))
    return tmp_path


def _drawn(outputs: Path) -> set[str]:
    return {str(path.relative_to(outputs)) for path in outputs.rglob("*.png")}


TINY = {
    "tiny/saes/layer_comparison.png",
    "tiny/saes/pareto.png",
    "tiny/saes/mlp_0/topk-abc/training_plots/training.png",
    "tiny/saes/mlp_1/topk-abc/training_plots/training.png",
}
OTHER = {
    "other/saes/layer_comparison.png",
    "other/saes/pareto.png",
    "other/saes/residuals_0/topk-abc/training_plots/training.png",
}


def test_all_models_are_drawn(outputs: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--output-dir", str(outputs)]) == 0
    assert _drawn(outputs) == TINY | OTHER
    assert len(capsys.readouterr().out.splitlines()) == 7


def test_one_model_is_drawn_with_its_layers(outputs: Path):
    assert main(["--output-dir", str(outputs), "--model", "tiny"]) == 0
    assert _drawn(outputs) == TINY


def test_fvu_against_l0_alone_is_drawn(outputs: Path):
    assert main(["--output-dir", str(outputs), "--pareto"]) == 0
    assert _drawn(outputs) == {"tiny/saes/pareto.png", "other/saes/pareto.png"}


def test_one_history_is_drawn(outputs: Path):
    assert main(["--history", str(outputs / "tiny/saes/mlp_1/topk-abc/history.json")]) == 0
    assert _drawn(outputs) == {"tiny/saes/mlp_1/topk-abc/training_plots/training.png"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output-dir", "{}/nothing"], "there are no trained autoencoders in"),
        (["--output-dir", "{}", "--model", "tini"], "no trainings of the model 'tini'; it has: other, tiny"),
        (["--history", "{}/history.json"], "there is no"),
        (["--history", "{}/history.json", "--pareto"], "--pareto compares trainings, and --history is only one"),
        (["--history", "{}/broken.json"], "is not valid JSON"),
        (["--history", "{}/verdict.json"], "is not the history of a training: it lacks model, site"),
    ],
)
def test_a_mistake_is_one_line(outputs: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    (outputs / "broken.json").write_text("{")
    (outputs / "verdict.json").write_text("{}")
    assert main([argument.format(outputs) for argument in arguments]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]


def test_help_comes_without_heavy_imports():
    code = (
        "import sys, refusal.sae.plot as plot\n"
        "try: plot.main(['--help'])\n"
        "except SystemExit: print(sorted({'torch', 'matplotlib', 'pandas', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for option in ("--model", "--history", "--output-dir", "python -m refusal.sae.plot --history FILE"):
        assert option in done.stdout
