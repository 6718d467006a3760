"""A disk that fills up while a collection runs: one line, nothing half-written, and the next run goes on."""

from __future__ import annotations

import resource
import shutil
import time
from functools import partial
from pathlib import Path

import pytest

from tests.activations.same_store import differences
from tests.pipeline.own_disk import fill, own_disk
from tests.pipeline.whole import PLANTED, finish, start, store, succeed

ARGUMENTS = (*PLANTED, "logger=none", "layers=mlp_2")
STORE = "outputs/planted/activations/*"
SHARDS = (".h5", ".unscored")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    succeed(folder, "collect", *ARGUMENTS)
    return store(folder)


def test_a_disk_that_fills_up_leaves_what_the_next_run_goes_on_with(tmp_path: Path, whole: Path) -> None:
    with own_disk(tmp_path, megabytes=48) as disk:
        if disk is None:
            pytest.skip("no file system can be mounted here")
        process = start(tmp_path, "collect", *ARGUMENTS, before=disk.enter)
        while not (written := [path for path in disk.seen.glob(f"{STORE}/shard-*") if path.suffix in SHARDS]):
            time.sleep(0.001)
        fill(disk.seen / "ballast")
        failed, collected = finish(process), written[0].parent
        assert failed.status == 1
        line = failed.err.removesuffix("\n")
        assert "\n" not in line, failed.err
        assert line.startswith("error: cannot write in outputs/planted/activations/")
        assert line.endswith(": No space left on device")
        names = {path.name for path in collected.iterdir()}
        assert "manifest.json" not in names
        assert not [name for name in names if name.endswith(".tmp")]
        assert 0 < len([name for name in names if name.endswith(SHARDS)]) < len(list(whole.glob("*.h5")))
        (disk.seen / "ballast").unlink()
        resumed = finish(start(tmp_path, "collect", *ARGUMENTS, before=disk.enter))
        assert (resumed.status, resumed.err) == (0, "")
        assert ("activations", "resumed") in resumed.states
        assert differences(whole, collected) == []


def test_a_file_that_may_not_grow_is_one_line_and_the_next_run_goes_on(tmp_path: Path, whole: Path) -> None:
    home = tmp_path / "outputs" / "planted"
    shutil.copytree(whole.parents[1] / "model", home / "model")
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    failed = finish(start(tmp_path, "collect", *ARGUMENTS, before=limit))
    assert failed.status == 1
    (line,) = failed.err.splitlines()
    assert line.startswith("error: cannot write in outputs/planted/activations/")
    assert line.endswith(": File too large")
    assert not list(home.rglob("*.tmp"))
    succeed(tmp_path, "collect", *ARGUMENTS)
    assert differences(whole, home / "activations" / whole.name) == []
