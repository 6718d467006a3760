"""An environment of its own for the libraries whose files are read and written here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest
import torch

torch.set_num_threads(1)

PYTHON = "REFUSAL_PEERS_PYTHON"
PACKAGES = ("torch<2.14", "sae-lens", "eai-sparsify", "dictionary-learning")
Peers = Callable[..., np.ndarray]


@pytest.fixture(scope="session")
def peers_python() -> Path:
    """A Python that has the libraries: the one that REFUSAL_PEERS_PYTHON names, or one made and kept in the cache."""
    named = os.environ.get(PYTHON)
    return Path(named) if named else _make(Path.home() / ".cache" / "refusal-circuits" / "peers")


@pytest.fixture(scope="session")
def asked(peers_python: Path) -> Iterator[subprocess.Popen[str]]:
    """``peers.py``, which imports each library once."""
    command = [peers_python, Path(__file__).with_name("peers.py")]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as process:
        yield process  # which ends with its input


@pytest.fixture
def peers(asked: subprocess.Popen[str], tmp_path: Path) -> Peers:
    """Ask it for a reconstruction of rows."""

    def ask(*arguments: str | Path, x: np.ndarray) -> np.ndarray:
        rows, out = tmp_path / "rows.npy", tmp_path / "out.npy"
        np.save(rows, x)
        assert asked.stdin is not None
        assert asked.stdout is not None
        print(json.dumps([str(argument) for argument in (*arguments, rows, out)]), file=asked.stdin, flush=True)
        error = json.loads(asked.stdout.readline())
        assert error is None, error
        return np.load(out)

    return ask


def _make(folder: Path) -> Path:
    """Make the environment, unless it is there whole."""
    python, whole = folder / "bin" / "python", folder / "whole"
    if whole.exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    pip = [python, "-m", "pip", "--quiet"]
    done = subprocess.run([*pip, "install", *PACKAGES], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"pip cannot install {', '.join(PACKAGES)}: {done.stderr.strip().splitlines()[-1]}")
    # the torchvision that sparsify's dependencies bring may be of another torch, and then breaks transformers
    subprocess.run([*pip, "uninstall", "--yes", "torchvision"], check=True)
    whole.touch()
    return python
