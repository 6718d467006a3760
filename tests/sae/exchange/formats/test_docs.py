"""What docs/formats.md says is so: its examples run as printed, its table names what is read and written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from refusal.sae.architectures.topk import TopK
from refusal.sae.exchange.formats import formats
from tests.sae.exchange.formats import reference

PAGE = (Path(__file__).parents[4] / "docs" / "formats.md").read_text(encoding="utf-8")


def test_the_examples_run_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    folder = Path("gemma-scope/layer_20/width_16k/average_l0_71")
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **reference.weights(6, 24), threshold=np.ones(24))  # type: ignore[arg-type]
    names: dict[str, Any] = {"x": torch.from_numpy(reference.rows(6)), "TopK": TopK}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 2
    assert names["x_hat"].shape == (32, 6)
    assert capsys.readouterr().out == "Origin(model='google/gemma-2-2b-it', site='residuals_20')\n"


def test_its_table_names_every_format_and_its_files():
    found = {}
    for line in PAGE.splitlines():
        if match := re.match(r"\| `(\w+)`[^|]*\| (`[^|]*`) \| yes \| ([^|]*) \|", line):
            found[match[1]] = (set(re.findall(r"`(.*?)`", match[2])), match[3] != "no")
    assert found == {name: (set(item.files), item.write is not None) for name, item in formats().items()}
