"""A small calibration from the command line: six small models, circuits on one."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from refusal.artifacts import read_json
from refusal.calibration.__main__ import main
from tests.commands import ROOT

PAGE = ROOT / "docs" / "calibration.md"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibration")
    assert main(["--quick", "--out", str(folder)]) == 0
    return folder


@pytest.mark.slow
def test_the_index_is_the_planted_truth(out: Path) -> None:
    figures = read_json(out / "calibration.json")["figures"]
    assert (figures["models"], figures["confidently_wrong"]) == (6, 0)
    assert figures["mean_error"] <= 0.05
    assert figures["largest_error"] <= 0.1
    assert figures["slowest_seconds"] <= 20


@pytest.mark.slow
def test_causal_methods_find_the_planted_nodes_and_stats_takes_the_decoy(out: Path) -> None:
    found = read_json(out / "calibration.json")
    assert len(found["nodes"]) == 1
    assert min(found["figures"][f"auc_{method}"] for method in ("atp", "ig", "exact")) >= 0.95
    assert found["figures"]["decoy_stats"] > 0.5
    assert max(found["figures"][f"decoy_{method}"] for method in ("atp", "ig", "exact")) <= 0.05


@pytest.mark.slow
def test_it_is_shown_as_page_and_picture(out: Path) -> None:
    page = (out / "calibration.md").read_text()
    assert "verdict right where the truth is clear" in page
    assert "| chatter |" in page
    assert (out / "calibration.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_what_is_measured_is_not_measured_again_and_comes_out_the_same(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (out / "calibration.json").read_bytes()
    monkeypatch.delattr("refusal.calibration.direct.measure_direct")  # what would measure
    monkeypatch.delattr("refusal.calibration.nodes.METHODS")
    assert main(["--quick", "--out", str(out)]) == 0
    assert (out / "calibration.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "0"], "--models must be 1 or more, --with-circuits from 0 to --models"),
        (["--models", "3", "--with-circuits", "4"], "--with-circuits from 0 to --models"),
        (["--seed", "-1"], "--seed 0 or more"),
        (["--models", "many"], "invalid int value: 'many'"),
        (["--modles", "3"], "unrecognized arguments: --modles 3"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_the_documented_command_is_one_that_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}
    monkeypatch.setattr("refusal.calibration.__main__.calibrate", lambda out, **options: asked.update(options))
    (line,) = {line.strip() for line in PAGE.read_text().splitlines() if line.startswith("    python -m refusal.cal")}
    assert main(shlex.split(line)[3:]) == 0
    assert asked["n_models"] >= 100
    assert asked["n_circuits"] >= 20
    assert asked["seed"] >= 100
