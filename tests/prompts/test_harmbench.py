from __future__ import annotations

from pathlib import Path

import pytest

from refusal import InputError
from refusal.prompts.harmbench import read_harmbench

HEADER = "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\n"  # of the published files
ROWS = (
    "Do it,standard,illegal,,,do_it\n"
    'Go on,contextual,harmful,context,"He said: ""So."",\nand left.",go_on\n'
    "Sing it,copyright,copyright,lyrics,,sing_it\n"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "harmbench_behaviors_text_all.csv"
    path.write_text(HEADER + ROWS)
    return path


def test_all_are_toxic_and_a_context_stands_before_its_behaviour(path: Path) -> None:
    found = [(p.text, p.category, p.split) for p in read_harmbench(path, kinds=["standard", "contextual"])]
    assert found == [
        ("Do it", "illegal", "toxic"),
        ('He said: "So.",\nand left.\n\n---\n\nGo on', "harmful", "toxic"),
    ]


def test_kinds_of_behaviour_are_chosen(path: Path) -> None:
    assert [p.category for p in read_harmbench(path, kinds=["copyright"])] == ["copyright"]


def test_no_such_behaviours_are_one_line_with_those_that_there_are(path: Path) -> None:
    path.write_text(HEADER + ROWS.splitlines(keepends=True)[0])
    with pytest.raises(InputError) as caught:
        read_harmbench(path, kinds=["contextual", "copyright"])
    assert (
        str(caught.value) == f"{path} has no behaviours that are contextual or copyright; data.kinds can be: standard"
    )
