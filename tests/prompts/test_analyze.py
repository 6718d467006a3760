from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from refusal import InputError
from refusal.prompts.analyze import EXAMPLES, FIGURE, STATISTICS, analyze, main
from refusal.prompts.harmbench import COLUMNS
from refusal.prompts.orbench import FILES
from refusal.prompts.prompt import SPLITS, make_prompts

ROOT = Path(__file__).parents[2]


def command(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the command as a person does."""
    words = [sys.executable, "-m", "refusal.prompts.analyze", *map(str, arguments)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_both_files_are_written_and_low_shares_warned_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = make_prompts([*((f"{i}", "hate", "safe") for i in range(19)), ("x", "hate", "toxic")])
    statistics = analyze(prompts, tmp_path / "new")
    assert json.loads((tmp_path / "new" / STATISTICS).read_text()) == statistics
    assert (tmp_path / "new" / FIGURE).read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [FIGURE, STATISTICS]
    captured = capsys.readouterr()
    assert [line.split()[:2] for line in captured.out.splitlines()] == [["data", "built"]] * 2
    assert captured.err == "warning: category 'hate': 5.0% of its prompts are toxic (1 of 20), under 10%\n"


def test_no_prompts_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no prompts"):
        analyze([], tmp_path)


def test_without_options_the_shipped_prompts_are_counted(tmp_path: Path) -> None:
    done = command(cwd=tmp_path)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    statistics = json.loads((tmp_path / "outputs" / "data_analysis" / STATISTICS).read_text())
    assert statistics["total"]["toxic"] == 654
    # 30 of 357 and 50 of 782 are under ten per cent, and no other category is
    assert [line.split("'")[1] for line in done.stderr.splitlines()] == ["harmful", "illegal"]


@pytest.mark.parametrize(
    ("option", "content", "total"),
    [
        ("--xstest", "prompt,type\na,homonyms\nb,contrast_homonyms\nc,privacy_public\n", (0, 2, 1)),
        ("--harmbench", f"{','.join(COLUMNS)}\na,standard,x,\nb,copyright,y,\n", (0, 0, 2)),
        ("--table", "prompt,category,split\na,x,safe\nb,x,toxic\n", (1, 0, 1)),
    ],
)
def test_other_data_are_counted_as_they_are_read(
    option: str, content: str, total: tuple[int, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data.csv").write_text(content)
    assert main([option, str(tmp_path / "data.csv"), "--output", str(tmp_path / "out")]) == 0
    statistics = json.loads((tmp_path / "out" / STATISTICS).read_text())
    assert tuple(statistics["total"][split] for split in SPLITS) == total
    capsys.readouterr()


def test_help_is_quick_and_has_three_examples() -> None:
    start = time.monotonic()
    done = command("--help")
    assert time.monotonic() - start < 5  # 0.1 s alone
    assert done.returncode == 0
    assert EXAMPLES in done.stdout
    assert len(re.findall(r"^  python -m refusal\.prompts\.analyze", done.stdout, re.MULTILINE)) == 3
    for word in (*FILES.values(), "--data-dir", "--output", STATISTICS, FIGURE):
        assert word in done.stdout


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "refusal").symlink_to(ROOT / "refusal")  # they are written for the project's folder
    monkeypatch.chdir(tmp_path)
    for line in EXAMPLES.splitlines()[1:]:
        words = shlex.split(line)
        assert words[:3] == ["python", "-m", "refusal.prompts.analyze"]
        assert main(words[3:]) == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data-dir", "nowhere"], "error: there is no folder nowhere; it has to hold or-bench-80k.csv"),
        (["--output", "/dev/null/x"], "error: cannot write /dev/null/x/data_split_statistics.json: Not a directory"),
        (["--xstest", "a.csv", "--table", "b.csv"], "error: argument --table: not allowed with argument --xstest; see"),
        (["--data"], "error: argument --data-dir: expected one argument; see --help"),
        (["--colour", "red"], "error: unrecognized arguments: --colour red; see --help"),
    ],
)
def test_an_error_is_one_line_and_status_one(arguments: list[str], expected: str, tmp_path: Path) -> None:
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(expected)
    assert len(done.stderr.splitlines()) == 1
