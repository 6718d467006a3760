"""One collection by several commands at once: plain ones, and an array of jobs as a cluster runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.activations.same_store import differences
from tests.pipeline.whole import PLANTED, command, finish, start, store, succeed

# 1,320 prompts beside the calibration fold, in three waves of 512 and more: every part of three has its own
ARGUMENTS = (*PLANTED, *(f"data.n_{split}=220" for split in ("safe", "hard", "toxic")), "logger=none", "layers=mlp_2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    succeed(folder, "collect", *ARGUMENTS)
    return store(folder)


@pytest.mark.slow  # processes by themselves: tests/activations/test_resume.py, whole studies: test_stages.py
def test_plain_commands_share_a_folder(tmp_path: Path, whole: Path) -> None:
    done = [finish(process) for process in [start(tmp_path, "collect", *ARGUMENTS) for _ in range(2)]]
    assert [(one.status, one.err) for one in done] == [(0, "")] * 2
    assert differences(whole, store(tmp_path)) == []


@pytest.mark.slow  # parts by themselves: tests/activations/test_resume.py, submitit: tests/config/test_launchers.py
def test_an_array_of_jobs_through_submitit(tmp_path: Path, whole: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    done = succeed(tmp_path, "collect", "-m", "launcher=submitit_local", "shard=1/3,2/3,3/3", *ARGUMENTS)
    assert done.err == ""
    assert differences(whole, store(tmp_path)) == []
    logs = [path.read_text() for path in tmp_path.glob("outputs/multirun/*/.submitit/*/*_0_log.out")]
    assert len(logs) == 3
    said = [line.split()[1] for log in logs for line in log.splitlines() if line.startswith("activations ")]
    assert len(said) == 3
    assert set(said) - {"partial"}


@pytest.mark.parametrize(
    ("script", "arguments", "error"),
    [
        ("train", ("shard=1/2",), "shard=1/2 is for collect.py; the other commands need all of the activations"),
        ("discover", ("shard=1/2",), "shard=1/2 is for collect.py; the other commands need all of the activations"),
        ("collect", ("shard=3/2",), "shard=3/2: give a part and the number of parts, such as shard=3/16"),
        ("collect", ("shard=1/2", "force=true"), "force=true and shard=1/2 exclude each other"),
    ],
)
def test_what_a_part_cannot_be_is_one_line(tmp_path: Path, script: str, arguments: tuple[str, ...], error: str) -> None:
    done = command(tmp_path, script, *ARGUMENTS, *arguments)
    (line,) = done.err.splitlines()
    assert done.status == 1
    assert line.startswith(f"error: {error}")
    assert not (tmp_path / "outputs" / "planted" / "activations").exists()
