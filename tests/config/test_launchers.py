"""Jobs in processes of their own, each with the real pipeline, which only plans."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_multirun_in_other_processes(launcher: str, tmp_path: Path) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    told = ["-m", "plan=true", f"launcher={launcher}", "layers=residuals_1,mlp_2-3", "data.n_safe=1"]
    command = [sys.executable, str(ROOT / "train.py"), *told]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    # n_safe=1 is too few: every job fails by itself, and says so in a line of this process
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.returncode == 1
    assert [error.partition(":")[2].partition(":")[0].strip() for error in errors] == [
        "job 0 (layers=residuals_1)",
        "job 1 (layers=mlp_2-3)",
    ]


@pytest.mark.skipif(shutil.which("srun") is not None, reason="there is a Slurm cluster here")
def test_slurm_where_there_is_none_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "collect.py"), "-m", "launcher=submitit_slurm", "shard=1/2,2/2"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    (error,) = result.stderr.splitlines()
    assert result.returncode == 1
    assert error.startswith("error: launcher=submitit_slurm needs a Slurm cluster, and there is no srun here")
