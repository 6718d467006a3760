"""For all tests: the reports that several folders look at; hypothesis without a time limit.

The first call of a compiled loop takes seconds.
"""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_collection_finish() -> None:
    """Let the garbage collector leave out what imports have made: half a million objects, looked at in vain."""
    gc.freeze()


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The model's folder of each study in ``tests.report.fixture``, all in one folder, with its report built."""
    from tests.report.fixture import CASES, built_case

    root = tmp_path_factory.mktemp("outputs")
    return {case: built_case(root, case) for case in CASES}
