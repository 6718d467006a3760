"""The examples of docs/training.md run as printed, and its tables name every choice."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from refusal.artifacts import write_json
from refusal.sae import plot
from tests.commands import ROOT, Runner, pretend
from tests.sae.figures.made_up import history

PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
PRINTED = {re.split(r" {3,}", line)[0] for line in re.findall(r"^    python (.*)", PAGE, re.MULTILINE)}
COMMANDS = sorted(one for one in PRINTED if not any(other.startswith(f"{one} ") for other in PRINTED))  # the longest


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_run(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    script, *arguments = shlex.split(command)
    if script == "-m":
        assert arguments[0] == "refusal.sae.plot"
        write_json(Path("outputs/planted/saes/mlp_3/topk-0123456789ab/history.json"), history())
        assert plot.main(arguments[1:]) == 0
        assert Path("outputs/planted/saes/pareto.png").is_file()
        return
    pipeline = pretend(monkeypatch)
    arguments = [argument for argument in arguments if argument != "launcher=joblib"]  # its processes do not pretend
    arguments = [re.sub(r"=(\w+),[\w,]+,(\w+)$", r"=\1,\2", argument) for argument in arguments]  # a sweep's two ends
    result = Runner(monkeypatch, capsys)(script.removesuffix(".py"), *arguments, "logger=none")
    assert result.status == 0, result.err
    assert pipeline.calls


@pytest.mark.parametrize("group", ["sae", "arm"])
def test_every_choice_is_described(group: str) -> None:
    choices = {path.stem for path in (ROOT / "conf" / group).glob("[!_]*.yaml")}
    assert choices == {choice for choice in choices if f"`{choice}`" in PAGE}
