"""Offline runs, read back from the files that ``wandb sync`` would send."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.callbacks.wandb_files import read_runs
from tests.commands import Pretended, Runner, bad


def test_a_multirun_is_a_group_of_runs_and_one_that_compares_them(run: Runner, tmp_path: Path) -> None:
    result = run("train", "-m", "layers=residuals_1,residuals_2", "sae.k=8,16")
    assert result.status == 0, result.err
    *jobs, comparison = read_runs(tmp_path / "outputs")
    told = [(job.config["layers"]["names"], job.config["sae"]["k"]) for job in jobs]
    assert told == [(["residuals_1"], 8), (["residuals_1"], 16), (["residuals_2"], 8), (["residuals_2"], 16)]
    assert {job.job_type for job in jobs} == {"train"}
    assert comparison.job_type == "comparison"
    (group,) = {one.group for one in (*jobs, comparison)}
    assert group.startswith("train ")
    assert [one.exit_code for one in (*jobs, comparison)] == [0] * 5
    assert jobs[2].summary["sae/residuals_2/fvu"] == jobs[2].summary["heldout/fvu"] == 0.1
    assert jobs[2].summary["heldout/recovered_refusal"] == 0.7
    quality = {name: value for name, value in jobs[2].summary.items() if name.startswith("quality/residuals_2/")}
    assert {name.removeprefix("quality/residuals_2/"): value for name, value in quality.items()} == {
        **{"kl": 0.01, "recovered_ce": 0.9, "auc/toxic": 0.95},
        **{"recovered_refusal/toxic": 0.8, "refusal_rate/toxic": 0.9},
    }
    table = _table(tmp_path, comparison.summary["comparison/sweep.path"])
    assert table["columns"][:4] == ["job", "layers", "sae.k", "status"]
    assert [row[:4] for row in table["data"]][3] == [3, "residuals_2", "16", "done"]
    for row in table["data"]:
        assert " ".join(map(str, row[:3])) in " ".join(result.out.split())
    autoencoders = _table(tmp_path, comparison.summary["comparison/autoencoders.path"])
    assert autoencoders["columns"][:5] == ["job", "layers", "sae.k", "status", "site"]


def test_a_discovery_has_tables_circuits_and_the_verdict(run: Runner, tmp_path: Path) -> None:
    result = run("discover", "seed=1")
    assert result.out.splitlines()[-1].startswith("monolithic")
    (job,) = read_runs(tmp_path / "outputs")
    assert (job.group, job.name) == ("", "discover seed=1")
    assert "model: planted" in job.tags
    assert job.summary["verdict"] == "monolithic"
    assert (job.summary["index"], job.summary["ci_low"], job.summary["ci_high"]) == (0.88, 0.9, 1.0)
    assert job.summary["status"] == "done"
    transfer = _table(tmp_path, job.summary["comparison/transfer.path"])
    assert transfer == {"columns": ["removed", "hate", "fraud"], "data": [["hate", 1.0, 0.9], ["fraud", 0.8, 1.0]]}
    refused = _table(tmp_path, job.summary["comparison/refused.path"])
    assert refused["data"] == [["safe", 1, 19, 20], ["toxic", 19, 1, 20]]
    nodes = _table(tmp_path, job.summary["circuits/nodes.path"])
    assert nodes["data"][0] == ["hate", "all", "mlp_2", 7, 1.5, 1.0]
    assert "circuits-aaaabbbbcccc" in job.artifacts
    pictures = {key.removesuffix("._type") for key, kind in job.summary.items() if kind == "image-file"}
    assert pictures == {"training/mlp_2/loss", "similarity/planted_similarity_heatmap", "report/index_by_layer"}
    assert not [key for key in job.logged if key.startswith("prompts")]


def test_a_failed_job_is_a_failed_run(run: Runner, pipeline: Pretended, tmp_path: Path) -> None:
    pipeline.failures["discover"] = bad("no toxic rows")
    assert run("discover").error == "error: no toxic rows"
    (job,) = read_runs(tmp_path / "outputs")
    assert (job.exit_code, job.summary["status"], job.summary["error"]) == (1, "failed", "no toxic rows")


def test_a_sweep_with_a_failed_job_is_still_compared(run: Runner, pipeline: Pretended, tmp_path: Path) -> None:
    pipeline.failures["train mlp_1"] = RuntimeError("boom")
    assert run("train", "-m", "layers=mlp_1,mlp_2").status == 1
    failed, done, comparison = read_runs(tmp_path / "outputs")
    assert [one.exit_code for one in (failed, done, comparison)] == [1, 0, 1]
    assert (comparison.summary["jobs"], comparison.summary["failed"]) == (2, 1)


def test_an_interrupted_job_closes_its_run(run: Runner, pipeline: Pretended, tmp_path: Path) -> None:
    pipeline.failures["train"] = KeyboardInterrupt()  # type: ignore[assignment]
    assert run("train").status == 130
    (job,) = read_runs(tmp_path / "outputs")
    assert job.exit_code == 130


@pytest.mark.parametrize("arguments", [["logger=none"], ["logger=csv"], ["plan=true"], ["model.modularity=7"]])
def test_no_run_is_opened_without_need(arguments: list[str], run: Runner, tmp_path: Path) -> None:
    run("train", *arguments)
    assert read_runs(tmp_path / "outputs") == []


def test_without_an_account_online_logging_is_one_line(
    run: Runner, pipeline: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("NETRC", "/nonexistent/netrc")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert run("train", "logger=wandb").error.startswith("error: logger=wandb needs an account")
    assert not pipeline.calls


def test_prompts_are_logged_only_when_asked_for(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refusal.activations.store.ActivationStore", _Store)
    assert run("collect", "logger.texts=true").status == 0
    (job,) = read_runs(tmp_path / "outputs")
    assert _table(tmp_path, job.summary["prompts.path"])["data"] == [
        ["0", "hate", "safe", "hello", "Sure", False, -6.0]
    ]


@pytest.mark.parametrize("texts", [False, True])
def test_the_file_of_features_which_holds_prompts_leaves_only_when_asked_for(
    texts: bool, run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refusal.activations.store.ActivationStore", _Store)
    assert run("discover", f"logger.texts={texts}").status == 0
    (sent,) = (tmp_path / "outputs" / "wandb").glob("offline-run-*/*.wandb")
    assert b"planted_comparison.json" in sent.read_bytes()
    assert (b"features.json" in sent.read_bytes()) == texts


class _Store:
    def __init__(self, folder: Path) -> None:
        assert folder.name == "store"

    def prompts(self) -> pd.DataFrame:
        columns = ["id", "category", "split", "text", "response", "refused", "refusal_score", "fold"]
        return pd.DataFrame([["0", "hate", "safe", "hello", "Sure", False, -6.0, "train"]], columns=columns)


def _table(folder: Path, path: str) -> dict[str, list]:
    (file,) = folder.glob(f"outputs/wandb/offline-run-*/files/{path}")
    table = json.loads(file.read_text())
    return {"columns": table["columns"], "data": table["data"]}
