from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from refusal import InputError
from refusal.prompts.prompt import Prompt
from refusal.prompts.table import read_table

USUAL: dict[str, Any] = {
    "columns": {"prompt": "prompt", "category": "category", "split": "split"},
    "category": None,
    "split": None,
    "split_values": {},
}


def read(path: Path, content: str, **options: Any) -> list[tuple[str, str, str]]:
    path.write_text(content)
    prompts: list[Prompt] = read_table(path, **{**USUAL, **options})
    return [(prompt.text, prompt.category, prompt.split) for prompt in prompts]


def test_columns_with_the_usual_names_need_no_options(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", "split,prompt,category\nhard,How?,hate\n") == [("How?", "hate", "hard")]


def test_columns_and_splits_can_have_any_names(tmp_path: Path) -> None:
    content = '{"q": "How?", "topic": "$spam$", "unsafe": true}\n{"q": "Why?", "topic": "x", "unsafe": false}\n'
    columns = {"prompt": "q", "category": "topic", "split": "unsafe"}
    values = {"true": "toxic", "false": "safe"}
    found = read(tmp_path / "a.jsonl", content, columns=columns, split_values=values)
    assert found == [("How?", "$spam$", "toxic"), ("Why?", "x", "safe")]


@pytest.mark.parametrize("given", [{1: "toxic"}, {"1": "toxic"}, {True: "toxic"}, {"TRUE": "toxic"}])
def test_splits_are_known_whatever_their_type_and_case(tmp_path: Path, given: dict[Any, str]) -> None:
    content = f"prompt,category,split\nHow?,a,{next(iter(given))}\nWhy?,a, Safe\n"
    found = read(tmp_path / "a.csv", content, split_values=given)
    assert [split for _, _, split in found] == ["toxic", "safe"]


def test_a_file_of_one_category_or_one_split_needs_no_such_column(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", "prompt\nHow?\n", category="fraud", split="toxic") == [("How?", "fraud", "toxic")]
    assert read(tmp_path / "a.csv", "prompt,split\nHow?,hard\n", category="fraud") == [("How?", "fraud", "hard")]
    assert read(tmp_path / "a.csv", "prompt,category\nHow?,fraud\n", split="safe") == [("How?", "fraud", "safe")]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {},
            "row 2, column split: 'unsafe' is no split; say which of safe, hard, toxic it is: "
            "data.split_values={unsafe: toxic}",
        ),
        (
            {"split_values": {"unsafe": "toxik"}},
            "data.split_values: there is no 'toxik' (did you mean 'toxic'?); it can",
        ),
        ({"columns": {**USUAL["columns"], "promt": "q"}}, "data.columns: there is no 'promt' (did you mean 'prompt'?)"),
        (
            {"columns": {**USUAL["columns"], "split": "label"}},
            "row 1: no column label; its columns are: prompt, category",
        ),
    ],
)
def test_a_mistake_says_what_would_be_right(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path / "a.csv", "prompt,category,split\nHow?,hate,unsafe\n", **options)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
