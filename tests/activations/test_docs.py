"""What docs/activations.md prints runs as printed, one block after the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.activations.conftest import MIXED, write_store

PAGE = Path(__file__).parents[2] / "docs" / "activations.md"


def test_the_examples_run_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("outputs/planted/activations/67911dd32fb2")
    folder.mkdir(parents=True)
    write_store(folder, MIXED)
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 6
    assert capsys.readouterr().out.count("torch.Size([1024, 4])") == 100
    # the second number of a row is its prompt, the last of an id is, too
    assert names["last"][:, 1].tolist() == [int(prompt, 16) for prompt in names["table"]["id"]]
    assert names["direction"].shape == (4,)
    assert np.array_equal(names["values"][:, 1], names["tokens"]["prompt"][:16])
    assert names["rows"].state_dict()["batches"] == 1
