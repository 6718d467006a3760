"""Killed (SIGKILL) in the middle of each stage, the next run goes on, and the verdict is that of a run left alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline.warm import Started
from tests.pipeline.whole import SITES, SMALL, finish, leftovers, start, succeed, verdict


@pytest.mark.slow
def test_a_killed_study_ends_as_one_left_alone(tmp_path: Path, study: Path) -> None:
    home = tmp_path / "outputs" / "planted"

    _kill_when(start(tmp_path, "discover", *SMALL), lambda: _calibrated(home))
    assert not list(home.glob("activations/*/manifest.json"))

    process = start(tmp_path, "discover", *SMALL)
    _kill_when(process, lambda: list(home.glob("saes/*/topk-*/card.json")))
    first = {path: path.stat().st_mtime_ns for path in home.glob("saes/*/topk-*/card.json")}
    assert 0 < len(first) < len(SITES)
    assert "activations   resumed" in process.said[0]

    _kill_when(start(tmp_path, "discover", *SMALL), lambda: list(home.glob("circuits/.*.tmp")))
    assert leftovers(tmp_path)

    done = succeed(tmp_path, "discover", *SMALL)
    found = [(stage, "found") for stage in ("activations", "sae", "quality")]
    assert done.states == [*found, *((stage, "built") for stage in ("circuits", "heatmap", "report"))]
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert verdict(tmp_path) == verdict(study)
    assert not leftovers(tmp_path)


def _calibrated(home: Path) -> list[Path]:
    """Shards of the calibration fold: that phase is over, the next has begun."""
    return [path for path in home.glob("activations/*/shard-*calibration*") if path.suffix in (".h5", ".unscored")]


def _kill_when(process: Started, is_time: Callable[[], object]) -> None:
    """Kill the command as soon as something is the case; fail if it comes to its end before."""
    while not is_time():
        if process.poll() is not None:
            pytest.fail(f"it ended before it could be killed: {finish(process)}")
        time.sleep(0.002)
    process.kill()
    assert process.wait(timeout=60) == -9
