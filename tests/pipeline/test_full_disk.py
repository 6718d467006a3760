"""A disk that fills up while a collection runs: one line, nothing half-written, and the next run goes on."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.activations.same_store import differences
from tests.commands import ROOT
from tests.pipeline.whole import ENVIRONMENT, PLANTED, Done, finish, start, store, succeed

ARGUMENTS = (*PLANTED, "logger=none", "layers=mlp_2")
UNSHARE = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--map-root-user", "--mount")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    succeed(folder, "collect", *ARGUMENTS)
    return store(folder)


def in_namespace(disk: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command that alone sees a file system of 48 MB at ``disk``."""
    mount = f'mount -t tmpfs -o size=48m none "{disk}" && exec "$@"'
    return subprocess.run(
        [*UNSHARE, "sh", "-c", mount, "sh", *command],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_disk_that_fills_up_leaves_what_the_next_run_goes_on_with(tmp_path: Path, whole: Path) -> None:
    disk, out = tmp_path / "disk", tmp_path / "out"
    disk.mkdir()
    out.mkdir()
    if in_namespace(disk, "true").returncode:
        pytest.skip("no file system can be mounted here")
    ran = in_namespace(disk, sys.executable, "-m", "tests.pipeline.full_disk", str(disk), str(out), *ARGUMENTS)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    failed, resumed = (Done(*said) for said in json.loads((out / "done.json").read_text()))
    assert failed.status == 1
    line = failed.err.removesuffix("\n")
    assert "\n" not in line, failed.err
    assert line.startswith("error: cannot write in outputs/planted/activations/")
    assert line.endswith(": No space left on device")
    names = {path.name for path in (out / "full").iterdir()}
    assert "manifest.json" not in names
    assert not [name for name in names if name.endswith(".tmp")]
    assert 0 < len([name for name in names if name.endswith((".h5", ".unscored"))]) < len(list(whole.glob("*.h5")))
    assert (resumed.status, resumed.err) == (0, "")
    assert ("activations", "resumed") in resumed.states
    assert differences(whole, out / "resumed") == []


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
