from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.whole import SITES, SMALL, succeed


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the small study was made, one stage a command."""
    folder = tmp_path_factory.mktemp("study")
    collected = succeed(folder, "collect", *SMALL)
    assert collected.states == [("data", "built"), ("data", "built"), ("model", "built"), ("activations", "built")]
    trained = succeed(folder, "train", *SMALL)
    assert trained.states == [("activations", "found"), *[("sae", "built")] * len(SITES), ("quality", "built")]
    discovered = succeed(folder, "discover", *SMALL)
    assert discovered.states == [
        *(("activations", "found"), ("sae", "found"), ("quality", "found")),
        *(("circuits", "built"), ("heatmap", "built"), ("report", "built")),
    ]
    assert discovered.verdict == "monolithic"
    return folder
