from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refusal import InputError
from refusal.prompts.orbench import FILES, read_orbench

GOOD = "prompt,category\nWhy?,hate\n"


def write(folder: Path, **contents: str | bytes) -> Path:
    """Write the three files; those that are not given are good."""
    folder.mkdir(exist_ok=True)
    for split, name in FILES.items():
        content = contents.get(split, GOOD)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def one_line(folder: Path | None, *, download: bool = False) -> str:
    """Read what is bad and return the one line that says what is wrong."""
    with pytest.raises(InputError) as caught:
        read_orbench(folder, download=download)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_three_files_in_their_order(tmp_path: Path) -> None:
    folder = write(tmp_path, safe="prompt,category\nb,hate\na,self-harm\n", toxic="category,prompt,n\nsexual,c,1\n")
    found = [(prompt.text, prompt.category, prompt.split) for prompt in read_orbench(folder)]
    assert found == [
        ("b", "hate", "safe"),
        ("a", "self-harm", "safe"),
        ("Why?", "hate", "hard"),
        ("c", "sexual", "toxic"),
    ]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_what_spreadsheets_do_to_files_is_understood(tmp_path: Path, ending: str, mark: bytes) -> None:
    content = ending.join(["prompt,category", '"a, ""b""', 'c",hate', "", "d,hate"])
    texts = [prompt.text for prompt in read_orbench(write(tmp_path, safe=mark + content.encode()))]
    assert texts[:2] == [f'a, "b"{ending}c', "d"]


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1).filter(str.strip)


@settings(max_examples=50)
@given(st.lists(texts, min_size=1, max_size=5))
def test_every_text_that_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, given_texts: list[str]) -> None:
    folder = write(tmp_path_factory.getbasetemp() / "orbench")
    with (folder / FILES["safe"]).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("prompt", "category"), *((text, "hate") for text in given_texts)])
    assert [prompt.text for prompt in read_orbench(folder) if prompt.split == "safe"] == given_texts


def test_data_may_bring_their_own_categories(tmp_path: Path) -> None:
    folder = write(tmp_path, toxic="prompt,category\nWhy?,$spam$\n")
    assert read_orbench(folder, also=["$spam$"])[-1].category == "$spam$"
    assert "unknown category '$spam$'" in one_line(folder)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "row 1: no column prompt and no column category; it is empty"),
        ("text,category\na,hate\n", "row 1: no column prompt; its columns are: text, category"),
        (
            "prompt;category\na;hate\n",
            "row 1: no column prompt and no column category; its columns are: prompt;category",
        ),
        ("prompt,category\n", "no rows below its header"),
        (
            "prompt,category\na,hate\n\nb,Self-Harm\n",
            "row 4, column category: unknown category 'Self-Harm' (did you mean",
        ),
        ("prompt,category\na,zebra\n", "unknown category 'zebra'; the categories are: deception, harassment, "),
        ('prompt,category\n"a\nb",hate\nc,\n', "row 3, column category: empty"),
        ("prompt,category\n  ,hate\n", "row 2, column prompt: empty"),
        ("prompt,category\na, b,hate\n", "row 2: the header has 2 fields, this row 3"),
        ("prompt,category\na\n", "row 2: the header has 2 fields, this row 1"),
        ('prompt,category\na,hate\n"b,hate\nc,hate\n', "row 3: not valid CSV"),
        ("prompt,category\n" + "a" * 200_000 + ",hate\n", "row 2: not valid CSV (field larger than"),
        (b"prompt,category\na,hate\n\xe9,hate\n", "line 3: not UTF-8"),
        ("prompt,category\na,hate\n".encode("utf-16"), "line 1: not UTF-8"),
        ("prompt,catgory\na,hate\n", "row 1: no column category (did you mean 'catgory'?); its columns are: prompt, "),
    ],
)
def test_a_bad_file_is_one_line_with_its_place(tmp_path: Path, content: str | bytes, expected: str) -> None:
    line = one_line(write(tmp_path, toxic=content))
    assert expected in line
    assert str(tmp_path / "or-bench-toxic.csv") in line


def test_a_missing_folder_or_file_says_what_is_needed(tmp_path: Path) -> None:
    line = one_line(tmp_path / "nowhere")
    assert "there is no folder" in line
    assert "or-bench-80k.csv, or-bench-hard-1k.csv, or-bench-toxic.csv" in line
    write(tmp_path)
    (tmp_path / FILES["hard"]).unlink()
    assert one_line(tmp_path).startswith(f"there is no {tmp_path / FILES['hard']}; ")
    (tmp_path / FILES["hard"]).mkdir()
    assert one_line(tmp_path) == f"cannot read {tmp_path / FILES['hard']}: Is a directory"


def test_both_ways_to_the_files_are_named_unless_one_is_given(tmp_path: Path) -> None:
    for line in (one_line(None), one_line(tmp_path, download=True)):
        assert "give either data.dir=DIR, its folder, or data.download=true (bench-llm/or-bench of the hub)" in line


def test_reading_needs_no_heavy_library() -> None:
    heavy = "torch", "pandas", "numpy", "matplotlib", "transformers", "pytorch_lightning", "wandb", "huggingface_hub"
    code = f"import sys, refusal.prompts.analyze; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""
