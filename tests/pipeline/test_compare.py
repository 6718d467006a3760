"""Studies that stand on disk are compared again, and with each other, without a model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from refusal.artifacts import read_json
from refusal.comparison.compare import main
from tests.pipeline.whole import SMALL, succeed


def compared(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.fixture
def home(study: Path) -> Path:
    return study / "outputs" / "planted"


def test_a_study_is_compared_again_with_the_same_result(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = compared(capsys, home, "--out", tmp_path / "again.json")
    assert (status, err) == (0, "")
    own = read_json(next(home.glob("circuits/*/planted_comparison.json")))
    again = read_json(tmp_path / "again.json")
    assert {name: own[name] for name in own if name in again} == {name: again[name] for name in again if name in own}
    assert {"transfer", "sites", "combined", "tests"} < set(again)
    lines = out.splitlines()
    assert lines[0].startswith("planted (")
    assert lines[1].startswith(f"direct   index {own['transfer']['direct']['index']:.2f}, 95 % interval ")
    assert "similarity of two categories, on average (node threshold 0.1)" in lines
    assert any(line.startswith("  together: mlp_2: cosine ") for line in lines)
    assert any(line.startswith("  distinguishable: statistic ") for line in lines)


def test_other_thresholds_need_no_model(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = Path(shutil.copytree(home, tmp_path / "planted"))
    shutil.rmtree(here / "activations")
    shutil.rmtree(here / "model")
    (circuits,) = here.glob("circuits/*/card.json")
    changes = ("--node-threshold", "0.5", "--permutations", "19", "--bootstrap", "20", "--seed", "3")
    status, out, _ = compared(capsys, circuits.parent, *changes, "--out", tmp_path / "again.json")
    again = read_json(tmp_path / "again.json")
    wanted = {"node_threshold": 0.5, "permutations": 19, "bootstrap": 20, "seed": 3}
    assert status == 0
    assert {name: again[name] for name in wanted} == wanted
    assert "(node threshold 0.5)" in out
    assert "tests (19 permutations)" in out


def test_two_studies_are_put_side_by_side(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = Path(shutil.copytree(study, tmp_path / "study"))
    (first,) = here.glob("outputs/planted/circuits/*/card.json")
    succeed(here, "discover", *SMALL, "circuits.node_threshold=0.2", "circuits.bootstrap=50", "callbacks=heatmaps")
    (second,) = set(here.glob("outputs/planted/circuits/*/card.json")) - {first}
    status, out, err = compared(capsys, first.parent, second.parent, "--out", tmp_path / "two.json")
    assert (status, err) == (0, "")
    found = json.loads((tmp_path / "two.json").read_text())
    assert found["difference"] == 0  # the same model and prompts
    assert found["low"] < 0 < found["high"]
    assert found["verdicts_differ"] is found["differs"] is False
    assert [one["fingerprint"] for one in found["studies"]] == [first.parent.name, second.parent.name]
    assert out.splitlines()[3].startswith("difference 0.00, 95 % interval -")
    assert out.splitlines()[3].endswith("no difference shown; the same verdict")
    assert list(found["circuits"]["mlp_2"]["cosine"].values()) == pytest.approx([1.0] * 3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((".",), "there is no report/verdict.json in ."),
        (("a", "b", "c"), "3 studies: name one, or two; see --help"),
        (
            ("HOME", "HOME", "--node-threshold", "0.2"),
            "--node-threshold and --permutations are for one study; see --help",
        ),
        (("HOME", "--node-threshold", "0"), "--node-threshold 0 is a share: above 0, at most 1"),
        (("HOME", "--permutations", "0"), "--permutations 0: must be at least 1"),
    ],
)
def test_a_mistake_is_one_line(
    home: Path, arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = compared(capsys, *(home if argument == "HOME" else argument for argument in arguments))
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {says}")
    assert err.count("\n") == 1


def test_an_autoencoder_that_is_gone_is_one_line(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = Path(shutil.copytree(home, tmp_path / "planted"))
    shutil.rmtree(here / "saes" / "mlp_2")
    status, _, err = compared(capsys, here)
    assert status == 1
    assert "there is no autoencoder in" in err
    assert err.count("\n") == 1


def test_nothing_heavy_is_imported_to_say_how_it_is_used() -> None:
    code = "import sys; import refusal.comparison.compare; print([m for m in ('torch', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
