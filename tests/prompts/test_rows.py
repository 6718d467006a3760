from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refusal import InputError
from refusal.prompts.rows import guess, read_rows

COLUMNS = ("prompt", "kind")
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1).filter(str.strip)


def write(path: Path, content: str) -> Path:
    path.write_bytes(content.encode())
    return path


@settings(max_examples=50)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4), st.sampled_from([".csv", ".tsv", ".jsonl"]))
def test_every_text_that_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], kind: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"table{kind}"
    with path.open("w", newline="", encoding="utf-8") as file:
        if kind == ".jsonl":
            file.writelines(json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)
        else:
            csv.writer(file, delimiter="\t" if kind == ".tsv" else ",").writerows([COLUMNS, *rows])
    assert [tuple(row.values[column] for column in COLUMNS) for row in read_rows(path, COLUMNS)] == rows


def test_other_columns_may_stand_beside_and_blank_lines_between(tmp_path: Path) -> None:
    table = write(tmp_path / "a.tsv", "n\tkind\tprompt\n\n1\tx\tHow?\n")
    assert read_rows(table, COLUMNS) == [(f"{table}, row 3", {"prompt": "How?", "kind": "x"})]
    lines = write(tmp_path / "a.jsonl", '\n{"n": [1], "kind": true, "prompt": 1.5}\r\n')
    assert read_rows(lines, COLUMNS) == [(f"{lines}, line 2", {"prompt": "1.5", "kind": "true"})]


@pytest.mark.parametrize("content", ['{"prompt": "a", "kind": null}', '{"prompt": "a", "kind": " "}'])
def test_a_column_may_be_empty_where_that_is_said(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "a.jsonl", content)
    assert not read_rows(path, COLUMNS, may_be_empty=["kind"])[0].values["kind"].strip()
    with pytest.raises(InputError, match="line 1, column kind: empty; every row needs a kind"):
        read_rows(path, COLUMNS)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.tsv", "a,b\nc,d\n", "row 1: no column prompt and no column kind; its columns are: a,b"),
        ("a.tsv", "prompt\tkind\na\tb\tc\n", "row 2: the header has 2 fields, this row 3"),
        ("a.csv", "Prompt,kind\na,b\n", "row 1: no column prompt (did you mean 'Prompt'?); its columns are: Prompt, "),
        ("a.jsonl", "", " has no rows"),
        (
            "a.jsonl",
            '{"prompt": "a", "kind": "b"}\n{"prompt": "a",\n',
            "line 2: not valid JSON (Expecting property name",
        ),
        ("a.jsonl", "[" * 100_000, "line 1: not valid JSON ("),
        ("a.jsonl", '["a", "b"]', "line 1: not an object; every line is one, with the columns prompt, kind"),
        ("a.jsonl", '{"prompts": "a", "kind": "b"}', "line 1: no column prompt (did you mean 'prompts'?); its columns"),
        ("a.jsonl", "{}", "line 1: no column prompt and no column kind; it is empty"),
        ("a.jsonl", '{"prompt": ["a"], "kind": "b"}', "line 1, column prompt: not a text but a list"),
        ("a.jsonl", '{"prompt": {"a": 1}, "kind": "b"}', "line 1, column prompt: not a text but an object"),
        ("a.jsonl", '{"prompt": "\\ud800", "kind": "b"}', "line 1, column prompt: half of a surrogate pair"),
        ("a.xlsx", "x", " is no table that can be read; its name has to end in .csv, .tsv or .jsonl"),
    ],
)
def test_a_bad_file_is_one_line_with_its_place(tmp_path: Path, name: str, content: str, expected: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(InputError) as caught:
        read_rows(path, COLUMNS)
    line = str(caught.value)
    assert line.startswith(str(path))
    assert expected in line
    assert "\n" not in line


def test_a_file_that_is_absent_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no .*/nowhere\.csv"):
        read_rows(tmp_path / "nowhere.csv", COLUMNS)
    with pytest.raises(InputError, match=r"cannot read .*: Is a directory"):
        read_rows(tmp_path, COLUMNS)


def test_the_nearest_name_is_guessed() -> None:
    assert guess("Self Harm", ["hate", "self-harm"]) == " (did you mean 'self-harm'?)"
    assert guess("zebra", ["hate", "self-harm"]) == ""
