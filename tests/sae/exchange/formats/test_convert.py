"""``python -m refusal.sae.convert``: as its help says, mistakes in one line, nothing overwritten."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from refusal.sae.architectures.topk import TopK
from refusal.sae.convert import main
from refusal.sae.exchange.formats import Origin, read
from refusal.sae.files import load_sae, save_sae


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    sae = TopK(4, 12, 2, seed=1)
    sae.scale.fill_(0.25)
    save_sae(tmp_path / "ours", sae, model="tiny", site="mlp_3", cfg={})
    return tmp_path / "ours"


def test_there_and_back(tmp_path: Path, ours: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("sae_lens", "sparsify", "dictionary_learning"):
        assert main([str(ours), str(tmp_path / name), "--to", name]) == 0
        assert main([str(tmp_path / name), str(tmp_path / f"back_{name}"), "--to", "refusal", "--from", name]) == 0
        assert capsys.readouterr().out.splitlines() == [str(tmp_path / name), str(tmp_path / f"back_{name}")]
        x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
        back = load_sae(tmp_path / f"back_{name}", model="tiny", site="mlp_3")
        torch.testing.assert_close(back.encode(x), load_sae(ours).encode(x))


def test_model_and_site_can_be_said(tmp_path: Path, ours: Path):
    arguments = [str(ours), str(tmp_path / "out"), "--to", "sae_lens", "--model", "org/name", "--site", "residuals_9"]
    assert main(arguments) == 0
    assert read(tmp_path / "out").origin == Origin("org/name", "residuals_9")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{ours}", "{new}", "--to", "saelens"], "there is no format 'saelens'; the formats are dictionary_learning"),
        (["{ours}", "{ours}", "--to", "sae_lens"], "exists already"),
        (["{new}", "{new}", "--to", "sae_lens"], "there is no"),
        (["{ours}", "{new}", "--to", "sae_lens", "--from", "sae_lens"], "sae_weights.safetensors"),
        (["{ours}", "{new}", "--to", "sae_lens", "--site", "layer 3"], "'layer 3' is not a site"),
        (["{ours}", "{new}"], "--to; see --help"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    tmp_path: Path, ours: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
):
    places = {"ours": ours, "new": tmp_path / "new"}
    assert main([argument.format(**places) for argument in arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert list(tmp_path.iterdir()) == [ours]


def test_help_shows_examples_at_once():
    start = time.monotonic()
    command = [sys.executable, "-X", "importtime", "-m", "refusal.sae.convert", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "examples:\n    python -m refusal.sae.convert" in done.stdout
    assert "torch" not in {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert time.monotonic() - start < 20
