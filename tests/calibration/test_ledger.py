"""What was measured before a kill stays, and counts only for the same model and code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from refusal import InputError
from refusal.calibration.ledger import Ledger, code_version

MEASURES = """
import sys
from pathlib import Path
from refusal.calibration.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]), "code")
for i in range(10**9):
    ledger.add(ledger.key({"model": i}), {"index": i / 7})
"""


def test_a_killed_run_keeps_what_it_measured(tmp_path: Path) -> None:
    path = tmp_path / "out" / "models.jsonl"
    process = subprocess.Popen([sys.executable, "-c", MEASURES, path])
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and (not path.exists() or path.stat().st_size < 1000):
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    ledger = Ledger(path, "code")
    assert len(ledger.lines) >= 10
    assert all(ledger.lines[ledger.key({"model": i})] == {"index": i / 7} for i in range(len(ledger.lines)))


def test_a_line_that_was_cut_off_is_measured_again_and_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "models.jsonl"
    ledger = Ledger(path, "code")
    ledger.add("a", {"index": 1.0})
    ledger.add("b", {"index": 2.0})
    os.truncate(path, path.stat().st_size - 5)
    again = Ledger(path, "code")
    assert set(again.lines) == {"a"}
    again.add("c", {"index": 3.0})
    assert Ledger(path, "code").lines == {"a": {"index": 1.0}, "c": {"index": 3.0}}


def test_other_code_or_another_model_is_another_measurement(tmp_path: Path) -> None:
    one, other = (Ledger(tmp_path / "models.jsonl", code) for code in ("one", "other"))
    assert one.key({"model": 1}) == one.key({"model": 1}) != one.key({"model": 2})
    assert one.key({"model": 1}) != other.key({"model": 1})
    assert code_version() == code_version()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        Ledger(tmp_path / "file" / "models.jsonl", "code").add("a", {})
