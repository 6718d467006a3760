from __future__ import annotations

import csv
from pathlib import Path

import pytest

from refusal import InputError
from refusal.callbacks.closing import jobs_of, last_line
from refusal.config.schemas import TrainedSae
from tests.commands import VERDICT, Pretended, Runner


def test_only_what_differs_between_jobs_is_a_column() -> None:
    outcomes = {
        0: {"overrides": ["seed=3", "sae.k=8"], "status": "done", "report": {"verdict": VERDICT}},
        1: {"overrides": ["seed=3", "sae.k=16"], "status": "failed"},
    }
    first, second = jobs_of(outcomes)
    assert (first.head, second.head) == (
        {"job": 0, "sae.k": "8", "status": "done"},
        {"job": 1, "sae.k": "16", "status": "failed"},
    )
    assert first.verdict["index"] == 0.98


def test_a_collection_has_no_autoencoders() -> None:
    (job,) = jobs_of({0: {"overrides": [], "result": "outputs/planted/activations/x"}})
    assert job.saes == {}


def test_the_last_line_begins_with_the_verdict() -> None:
    assert last_line({**VERDICT, "verdict": "inconclusive", "index": None}).startswith("inconclusive: ")


def test_each_job_of_a_multirun_keeps_its_own_verdict(run: Runner, tmp_path: Path) -> None:
    result = run("discover", "-m", "logger=none", "seed=0,1")
    # report/ is the latest study's: job 0's index 0.98 must not become job 1's 0.88
    (written,) = tmp_path.glob("outputs/multirun/*/sweep.csv")
    rows = list(csv.DictReader(written.open(encoding="utf-8")))
    assert [(row["seed"], row["verdict"], row["index"]) for row in rows] == [
        ("0", "monolithic", "0.98"),
        ("1", "monolithic", "0.88"),
    ]
    table = [line.split() for line in result.out.splitlines()]
    assert list(rows[0]) in table
    assert ["1", "1", "done", "0.1", "8", "0", "0.7", "monolithic", "0.88", "0.9", "1", "2", "0.96"] in table


def test_a_sweep_leaves_tables_and_a_picture_in_its_folder(run: Runner, pipeline: Pretended, tmp_path: Path) -> None:
    pipeline.failures["train mlp_1"] = InputError("no toxic rows")
    result = run("train", "-m", "logger=none", "layers=mlp_1,mlp_2", "sweep=strata")
    (folder,) = tmp_path.glob("outputs/multirun/*")
    assert {"sweep.csv", "sweep.md", "autoencoders.csv", "strata.png"} <= {path.name for path in folder.iterdir()}
    for name in ("sweep.csv", "autoencoders.csv", "strata.png"):
        assert f"sweep         built    {folder.relative_to(tmp_path) / name}" in result.out.replace(f"{tmp_path}/", "")
    failed, done = csv.DictReader((folder / "sweep.csv").open(encoding="utf-8"))
    assert (failed["layers"], failed["status"]) == ("mlp_1", "failed")
    assert (done["layers"], done["status"]) == ("mlp_2", "done")


def test_collections_have_nothing_to_compare(run: Runner, tmp_path: Path) -> None:
    assert run("collect", "-m", "logger=none", "seed=0,1").status == 0
    assert not list(tmp_path.rglob("sweep.csv"))


def test_an_experiment_may_sweep_what_belongs_together(run: Runner, pipeline: Pretended, tmp_path: Path) -> None:
    result = run("train", "experiment=imbalance", "logger=none")
    assert result.status == 0, result.err
    told = [
        (options.sampler.target.split(".")[-2], options.sae.scope)
        for _, options in pipeline.calls
        if isinstance(options.sae, TrainedSae)
    ]
    assert told == [
        ("uniform", "shared"),
        ("weighted", "shared"),
        ("category_balanced", "shared"),
        ("uniform", "safe_toxic"),
    ]
    (written,) = tmp_path.glob("outputs/multirun/*/sweep.csv")
    rows = list(csv.DictReader(written.open(encoding="utf-8")))
    assert [row["arm"] for row in rows] == ["uniform", "weighted", "category_balanced", "safe_toxic"]


@pytest.mark.parametrize("variable", ["LOCAL_RANK", "NODE_RANK"])
def test_further_processes_of_a_distributed_training_do_only_the_task(
    variable: str, run: Runner, pipeline: Pretended, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(variable, "1")
    result = run("discover")
    assert (result.status, pipeline.names) == (0, ["train"])
    assert not list(tmp_path.rglob("wandb"))
    assert not list(tmp_path.rglob("outcome.json"))
