"""``experiment=calibration`` sends planted models of several modularities through every stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from refusal.config.schemas import PlantedModel
from tests.commands import Runner, pretend


@pytest.mark.slow
def test_the_experiment_sweeps_the_planted_modularity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pipeline = pretend(monkeypatch)
    result = Runner(monkeypatch, capsys)("discover", "experiment=calibration", "logger=none")
    assert result.status == 0, result.err
    models = [options.model for name, options in pipeline.calls if name == "discover"]
    assert [model.modularity for model in models if isinstance(model, PlantedModel)] == [0, 0.25, 0.5, 0.75, 1]
