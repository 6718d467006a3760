from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from refusal import progress

SLOW = """
import sys, time
from refusal import progress
progress.BAR_AFTER_SECONDS = float(sys.argv[1])
def items():
    for i in range(8):
        time.sleep(0.05)
        yield i
print(sum(progress.track(items(), "collecting", 8)))
"""


def on_a_terminal(after_seconds: float) -> tuple[str, str]:
    """Run ``SLOW`` with a pseudo terminal as stderr; return its stdout and what the terminal got."""
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-c", SLOW, str(after_seconds)],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment,
        timeout=60,
        check=True,
    )
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 65536):
            seen += part
    except OSError:  # Linux says so at the end of a pseudo terminal
        pass
    os.close(ours)
    return done.stdout.decode(), seen.decode()


def test_a_stage_says_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    progress.say("activations", "built", "outputs/a")
    assert capsys.readouterr().out == "activations   built    outputs/a\n"


def test_a_warning_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    progress.warn("few prompts")
    captured = capsys.readouterr()
    assert captured.err == "warning: few prompts\n"
    assert captured.out == ""


def test_what_is_tracked_comes_through_unchanged_and_lazily(capsys: pytest.CaptureFixture[str]) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(3):
            taken.append(i)
            yield i

    tracked = progress.track(items(), "working")
    assert next(tracked) == 0
    assert taken == [0]
    assert list(tracked) == [1, 2]
    assert capsys.readouterr() == ("", "")  # no terminal, no bar


def test_a_long_wait_shows_a_bar() -> None:
    out, seen = on_a_terminal(after_seconds=0.1)
    assert out == "28\n"  # 0 + 1 + ... + 7
    assert "collecting" in seen
    assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h") == 1  # the cursor is hidden, and given back


def test_a_short_wait_shows_none() -> None:
    assert on_a_terminal(after_seconds=60) == ("28\n", "")


def test_an_error_passes_through() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        list(progress.track(items(), "working"))
