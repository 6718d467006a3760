"""What docs/circuits.md says is so: its commands run, its example runs, its tables name what is in the files."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from refusal.artifacts import read_json
from refusal.circuits.circuit import Circuit, Edge, Node
from refusal.circuits.evaluation import SHARES, Evaluation
from tests.commands import ROOT

PAGE = (ROOT / "docs" / "circuits.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    python -m (.*)", PAGE, re.MULTILINE)


def test_the_commands_and_the_example_run_as_printed(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("outputs").symlink_to(study / "outputs")
    Path("my_prompts.txt").write_text("a prompt\nanother\n", encoding="utf-8")
    for command in COMMANDS:
        module, *arguments = shlex.split(command)
        assert import_module(module).main(arguments) == 0, capsys.readouterr().err
    assert len(COMMANDS) == 6
    assert "category  prompts  score  after  refused  after" in capsys.readouterr().out
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    assert len(names["strongest"]) == 5
    assert len(list(Path("graphs").iterdir())) == 3


def test_the_table_of_a_circuits_file_has_its_fields() -> None:
    described = re.search(r"`schema_version` 1:\n\n(.*?)\n\n", PAGE, flags=re.DOTALL)
    assert described is not None
    rows = {tuple(re.findall(r"`(\w+)`", row.split("|")[1])): row for row in described[1].splitlines()[2:]}
    assert {name for names in rows for name in names} == {field.name for field in fields(Circuit)}
    for names, kind in {("nodes",): Node, ("edges",): Edge}.items():
        assert {field.name for field in fields(kind)} <= set(re.findall(r"`(\w+)`", rows[names]))


def test_the_interventions_and_sizes_are_those_of_a_study(study: Path) -> None:
    (path,) = study.glob("outputs/planted/circuits/*/planted_comparison.json")
    comparison = read_json(path)
    found = {row["intervention"] for row in comparison["behaviour"]} - {"none"}
    assert set(re.findall(r"^\| `([a-z]+ [a-z ]+)` \|", PAGE, re.MULTILINE)) == found
    sizes = ", ".join(f"{100 * share:g}" for share in SHARES[:-1])
    assert f"{sizes} and 100 % of all nodes" in " ".join(PAGE.split())
    for name in ("faithfulness", "completeness", "curve", "cpr", "cmd"):
        assert f"`{name}`" in PAGE
        assert name in {field.name for field in fields(Evaluation)}
        assert name in comparison["evaluation"][0]
