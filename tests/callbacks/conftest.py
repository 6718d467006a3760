from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import Pretended, Runner, pretend


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    return pretend(monkeypatch)


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], pipeline: Pretended
) -> Runner:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    return Runner(monkeypatch, capsys)
