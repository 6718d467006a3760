from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from refusal.activations.shard import dataset, open_shard
from tests.activations.same_store import differences
from tests.commands import ROOT

WAYS = ("killed", "shared_by_four", "four_parts", "part_and_whole", "parts_in_turn", "part_killed")


class Stores(NamedTuple):
    """What the many ways left."""

    folder: Path
    lines: list[str]
    """That they printed."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    folder = tmp_path_factory.mktemp("stores")
    done = subprocess.run(
        [sys.executable, "-m", "tests.activations.interrupted", str(folder)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Stores(folder, done.stdout.splitlines())


@pytest.mark.parametrize("way", WAYS)
def test_a_store_equals_one_made_at_one_go(stores: Stores, way: str) -> None:
    assert differences(stores.folder / "whole", stores.folder / way) == []


@pytest.mark.parametrize("way", ["whole", *WAYS])
def test_nothing_temporary_is_left(stores: Stores, way: str) -> None:
    names = {path.name for path in (stores.folder / way).iterdir()}
    shards = {name for name in names if name.startswith("shard-") and name.endswith(".h5")}
    assert names - shards == {"manifest.json", "plan.json"}


def test_a_killed_collection_says_that_it_was_resumed(stores: Stores) -> None:
    assert f"activations   resumed  {stores.folder / 'killed'}" in stores.lines
    assert f"activations   built    {stores.folder / 'whole'}" in stores.lines


def test_a_part_says_how_far_all_of_them_are(stores: Stores) -> None:
    prefix = "activations   partial  "
    lines = [line.removeprefix(prefix) for line in stores.lines if line.startswith(prefix)]
    # alone, a part does the 6 shards of calibration and every fourth wave of the others: 5, 5 and 2 shards, and none
    assert [line for line in lines if "/4 is done" in line][-3:] == [
        "part 4/4 is done: 6 of 18 shards are there",
        "part 2/4 is done: 11 of 18 shards are there",
        "part 1/4 is done: 16 of 18 shards are there",
    ]


def test_a_difference_between_stores_is_seen(stores: Stores, tmp_path: Path) -> None:
    whole, other = stores.folder / "whole", tmp_path / "other"
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
