from __future__ import annotations

from pathlib import Path

import pytest

from refusal.callbacks.closing import autoencoder_rows, last_line, text_table, verdict_rows
from tests.commands import VERDICT, Pretended, Runner


def test_only_what_differs_between_jobs_is_a_column(tmp_path: Path) -> None:
    jobs = {
        0: {"overrides": ["seed=3", "sae.k=8"], "report": {"verdict": VERDICT}},
        1: {"overrides": ["seed=3", "sae.k=16"], "status": "failed"},
    }
    (row,) = verdict_rows(jobs)
    assert list(row)[:3] == ["job", "sae.k", "verdict"]
    assert (row["job"], row["sae.k"], row["index"]) == (0, "8", 0.98)


def test_jobs_without_autoencoders_have_no_row() -> None:
    assert autoencoder_rows({0: {"overrides": [], "result": "outputs/planted/activations/x"}}) == []


def test_a_table_is_aligned() -> None:
    rows = [{"job": 0, "fvu": 0.12345}, {"job": 10, "fvu": None}]
    assert text_table(rows) == "job  fvu\n0    0.123\n10   -"


def test_the_last_line_begins_with_the_verdict() -> None:
    assert last_line({**VERDICT, "verdict": "inconclusive", "index": None}).startswith("inconclusive: ")


def test_each_job_of_a_multirun_keeps_its_own_verdict(run: Runner, pipeline: Pretended) -> None:
    result = run("discover", "-m", "logger=none", "seed=0,1")
    # report/ is the latest study's: job 0's index 0.98 must not become job 1's 0.88
    table = [line.split() for line in result.out.splitlines()]
    assert ["0", "0", "monolithic", "0.98", "0.9", "1", "2", "0.96"] in table
    assert ["1", "1", "monolithic", "0.88", "0.9", "1", "2", "0.96"] in table


@pytest.mark.parametrize("variable", ["LOCAL_RANK", "NODE_RANK"])
def test_further_processes_of_a_distributed_training_do_only_the_task(
    variable: str, run: Runner, pipeline: Pretended, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(variable, "1")
    result = run("discover")
    assert (result.status, pipeline.names) == (0, ["train"])
    assert not list(tmp_path.rglob("wandb"))
    assert not list(tmp_path.rglob("outcome.json"))
