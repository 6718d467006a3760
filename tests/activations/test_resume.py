from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from refusal.activations.shard import dataset, open_shard
from tests.activations.same_store import differences
from tests.commands import ROOT


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


@pytest.mark.parametrize("name", ["killed", "shared"])
def test_a_store_equals_one_made_at_one_go(stores: Path, name: str) -> None:
    assert differences(stores / "whole", stores / name) == []


def test_nothing_temporary_is_left(stores: Path) -> None:
    for name in ("whole", "killed", "shared"):
        left = {path.name for path in (stores / name).iterdir() if not path.name.startswith("shard-")}
        assert left == {"manifest.json", "plan.json"}
        assert not list((stores / name).glob("shard-*.unscored")) + list((stores / name).glob("shard-*.npy"))


def test_a_difference_between_stores_is_seen(stores: Path, tmp_path: Path) -> None:
    whole, other = stores / "whole", tmp_path / "other"
    other.mkdir()
    for path in whole.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    assert differences(whole, other) == []
    shard = sorted(other.glob("shard-*.h5"))[0]
    with open_shard(shard, "r+") as file:
        dataset(file, "activations/mlp_2")[3, 5] += np.float32(1e-6)
        dataset(file, "prompts/response")[0] = "other"
        file["rows"].attrs["sections"] = "other"
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"seconds": 1e6, "n_rows": 0}))
    assert differences(whole, other) == [
        "manifest.json: n_rows",
        f"{shard.name}: activations/mlp_2",
        f"{shard.name}: prompts/response",
        f"{shard.name}: rows@sections",
    ]
    shard.unlink()
    assert differences(whole, other) == [f"files: {shard.name}"]


@pytest.mark.slow
def test_random_kills_leave_no_trace(tmp_path: Path) -> None:
    result = tmp_path / "kills.json"
    script = ROOT / "benchmarks" / "kill_resume.py"
    command = [sys.executable, str(script), "--kills", "5", "--seed", "7", "--json", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    kills = json.loads(result.read_text())["kills"]
    assert len({kill["phase"] for kill in kills}) >= 3
    assert [kill["differences"] for kill in kills] == [[]] * 5
