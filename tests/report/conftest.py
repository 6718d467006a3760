"""The four studies, each read once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from refusal.report.study import Study, find, read_study


@pytest.fixture(scope="session")
def studies(homes: dict[str, Path]) -> dict[str, Study]:
    return {case: read_study(find(home)) for case, home in homes.items()}


@pytest.fixture
def comparison(homes: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Each case's comparison, read anew, so that a test may change it."""
    paths = {case: next(home.glob("circuits/*/*_comparison.json")) for case, home in homes.items()}
    return {case: json.loads(path.read_text()) for case, path in paths.items()}
