"""The examples of docs/data.md run as printed, on small files of the names that they give."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from refusal.prompts import analyze
from refusal.prompts.augment import kinds
from refusal.prompts.orbench import FILES
from refusal.study import Study
from tests.commands import ROOT, Runner, pretend

PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    python (.*)", PAGE, re.MULTILINE)
TABLE = re.search(r"^    (prompt,category,split\n(?:    .*\n)+)", PAGE, re.MULTILINE)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the examples read."""
    assert TABLE
    contents = {
        **{f"or-bench/{name}": "prompt,category\na,hate\nb,hate\nc,hate\n" for name in FILES.values()},
        "xstest_prompts.csv": "prompt,type\na,homonyms\nb,homonyms\nc,contrast_homonyms\n",
        "harmbench_behaviors_text_all.csv": "Behavior,FunctionalCategory,SemanticCategory,ContextString\n"
        "a,standard,illegal,\nb,standard,illegal,\nc,standard,illegal,\n",
        "mine.csv": TABLE[1].replace("\n    ", "\n") + "a,illegal,toxic\n",
        "mine.jsonl": "".join(f'{{"text": "{text}", "topic": "fraud"}}\n' for text in "abc"),
        "labelled.tsv": "prompt\tcategory\tlabel\na\tx\tunsafe\nb\tx\tBenign\nc\tx\thard\n",
    }
    (tmp_path / "or-bench").mkdir()
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_run(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    script, *arguments = shlex.split(command)
    if script == "-m":
        assert arguments[0] == "refusal.prompts.analyze"
        assert analyze.main(arguments[1:]) == 0
        capsys.readouterr()
        return
    pipeline = pretend(monkeypatch)
    result = Runner(monkeypatch, capsys)(script.removesuffix(".py"), *arguments, "logger=none")
    assert result.status == 0, result.err
    if "data.download=true" not in arguments:  # the hub cannot be had here: test_hub.py
        assert Study(pipeline.options).prompts


def test_there_are_examples_of_every_choice_and_all_kinds_of_augmentation_are_described() -> None:
    choices = {path.stem for path in (ROOT / "conf" / "data").glob("[!_]*.yaml")}
    choices -= {"planted", "planted_imbalanced"}
    assert choices <= {word.removeprefix("data=") for command in COMMANDS for word in command.split()}
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE.partition("## Augmentation")[2], re.MULTILINE)) == set(kinds())
