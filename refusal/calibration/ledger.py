"""What is measured already: one JSON line a model, written to the disk before the next begins.

A run that was killed goes on where it stopped; at worst the model that it was at is measured again. A line counts
only for the same model measured by the same code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refusal import InputError
from refusal.artifacts import file_hash, fingerprint

SCHEMA_VERSION = 1
CODE = ("comparison/*.py", "circuits/**/*.py", "models/planted*.py", "calibration/planted.py")
CODE += ("calibration/direct.py", "calibration/nodes.py", "calibration/whole.py")
PACKAGE = Path(__file__).parents[1]


def code_version() -> str:
    """Return the fingerprint of the code that measures."""
    files = [path for pattern in CODE for path in sorted(PACKAGE.glob(pattern))]
    return fingerprint({str(path.relative_to(PACKAGE)): file_hash(path) for path in files})


class Ledger:
    """The lines of one file.

    Args:
        path: Where it stands; it may be absent.
        code: Version of the code that measures.

    Raises:
        InputError: The file cannot be read.
    """

    def __init__(self, path: Path, code: str) -> None:
        self.path, self.code = path, code
        self.lines: dict[str, dict[str, Any]] = {}
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {path}: {error}") from error
        self._ends = text.endswith("\n") or not text
        for line in text.splitlines():
            self.lines.update(_parsed(line))

    def key(self, what: Mapping[str, Any]) -> str:
        """Return the name of a measurement of this, by this code."""
        return fingerprint({"schema": SCHEMA_VERSION, "code": self.code, **what})

    def add(self, key: str, measured: dict[str, Any]) -> None:
        """Add a line, and wait until the disk has it.

        Raises:
            InputError: The disk refuses.
        """
        line = json.dumps({"key": key, "measured": measured}, allow_nan=False) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line if self._ends else f"\n{line}")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror or error}") from error
        self._ends = True
        self.lines[key] = measured


def _parsed(line: str) -> dict[str, dict[str, Any]]:
    """Return what a line holds; nothing of one that a killed run left unfinished."""
    try:
        found = json.loads(line)
        return {found["key"]: found["measured"]}
    except (ValueError, KeyError, TypeError):
        return {}
