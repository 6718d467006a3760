"""A job that did not come to its end goes on in its W&B run, by the id that was kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from refusal.callbacks.run_id import RunId
from tests.callbacks.wandb_files import read_runs
from tests.commands import Pretended, Runner, bad


def test_a_failed_job_goes_on_in_its_run_and_a_finished_one_begins_another(
    run: Runner, pipeline: Pretended, tmp_path: Path
) -> None:
    pipeline.failures["train"] = bad("the disk is full")
    run("train", "sae.k=8")
    pipeline.failures.clear()
    for _ in range(2):
        assert run("train", "sae.k=8").status == 0
    failed, again, later = read_runs(tmp_path / "outputs")
    assert failed.id == again.id != later.id
    assert [one.exit_code for one in (failed, again)] == [1, 0]
    assert again.summary["status"] == "done"


def test_the_id_of_a_killed_process_is_taken_up(tmp_path: Path) -> None:
    holds = "from pathlib import Path; from refusal.callbacks.run_id import RunId; import sys, time; "
    holds += "own = RunId(Path(sys.argv[1]), {'seed': 0}); print(own.value, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", holds, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        killed = process.stdout.readline().strip()
        beside = RunId(tmp_path, {"seed": 0})  # while the other is at work
        process.kill()
    beside.close(is_done=True)
    after = RunId(tmp_path, {"seed": 0})
    assert len(killed) == 8
    assert beside.value != killed
    assert after.value == killed
    assert RunId(tmp_path, {"seed": 1}).value != killed
    after.close(is_done=True)
    assert RunId(tmp_path, {"seed": 0}).value != killed
