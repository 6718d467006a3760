from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from refusal.activations.store import ActivationStore


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    done = subprocess.run(
        [sys.executable, "-m", "tests.activations.interrupted", str(folder)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("resumed") >= 1, done.stdout
    return folder


def contents(path: Path) -> dict[str, np.ndarray]:
    """Every dataset of a file with its attributes."""
    found: dict[str, np.ndarray] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]
            found.update({f"{name}@{key}": np.asarray(value) for key, value in item.attrs.items()})

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


@pytest.mark.parametrize("name", ["killed", "shared"])
def test_a_store_equals_one_made_at_one_go(stores: Path, name: str) -> None:
    whole, other = stores / "whole", stores / name
    assert sorted(path.name for path in whole.glob("*")) == sorted(path.name for path in other.glob("*"))
    n_datasets = 0
    for path in sorted(whole.glob("shard-*.h5")):
        expected, found = contents(path), contents(other / path.name)
        assert expected.keys() == found.keys()
        for dataset in expected:
            np.testing.assert_array_equal(found[dataset], expected[dataset], err_msg=f"{path.name}/{dataset}")
        n_datasets += len(expected)
    assert n_datasets > 18 * 20
    manifests = [ActivationStore(folder).manifest | {"seconds": 0} for folder in (whole, other)]
    assert manifests[0] == manifests[1]


def test_nothing_temporary_is_left(stores: Path) -> None:
    for name in ("whole", "killed", "shared"):
        left = {path.name for path in (stores / name).iterdir() if not path.name.startswith("shard-")}
        assert left == {"manifest.json", "plan.json"}
        assert not list((stores / name).glob("shard-*.unscored")) + list((stores / name).glob("shard-*.npy"))
