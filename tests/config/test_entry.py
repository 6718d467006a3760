from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import Pretended, Runner, bad

QUIET = "logger=none"


def test_collect_and_train_do_their_task_and_nothing_else(run: Runner, pipeline: Pretended) -> None:
    assert run("collect", QUIET).status == 0
    assert run("train", QUIET).status == 0
    assert pipeline.names == ["collect", "train"]


def test_discover_runs_every_step_in_order_and_ends_with_the_verdict(run: Runner, pipeline: Pretended) -> None:
    result = run("discover", QUIET)
    assert result.status == 0, result.err
    assert pipeline.names == ["train", "discover", "heatmaps", "report"]
    assert result.out.splitlines()[-1].startswith("monolithic: planted refuses by one mechanism")


def test_an_input_error_is_one_line(run: Runner, pipeline: Pretended) -> None:
    pipeline.failures["train"] = bad()
    result = run("discover", QUIET)
    assert (result.status, result.error) == (1, "error: the data have no toxic rows")
    assert pipeline.names == ["train"]


def test_another_error_shows_its_traceback_and_its_cause_last(run: Runner, pipeline: Pretended) -> None:
    pipeline.failures["train"] = RuntimeError("two\nlines")
    result = run("discover", QUIET)
    assert result.status == 1
    assert "Traceback" in result.err
    assert result.err.splitlines()[-1] == "error: RuntimeError: two lines"


def test_a_failing_callback_fails_the_command(run: Runner, pipeline: Pretended) -> None:
    pipeline.failures["discover"] = ValueError("no circuit")
    result = run("discover", QUIET)
    assert result.status == 1
    assert result.err.splitlines()[-1] == "error: ValueError: no circuit"
    assert pipeline.names == ["train", "discover"]  # neither heatmaps nor report


def test_a_failing_callback_of_someone_else_fails_the_command(run: Runner) -> None:
    result = run("train", QUIET, "+hydra.callbacks.mine._target_=tests.config.test_entry.Broken")
    assert result.status == 1
    assert "Traceback" in result.err
    assert result.err.splitlines()[-1].endswith("ValueError: broken by hand")


class Broken:
    def on_job_end(self, **kwargs: object) -> None:
        raise ValueError("broken by hand")

    def __getattr__(self, name: str) -> object:
        return lambda **kwargs: None


def test_ctrl_c_leaves_one_line_and_its_usual_status(
    run: Runner, pipeline: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.failures["train"] = KeyboardInterrupt()  # type: ignore[assignment]
    result = run("train", QUIET)
    assert result.status == 130
    assert result.err.strip().splitlines() == ["interrupted: the same command goes on from what is finished"]


def test_plan_prints_and_stops(run: Runner, pipeline: Pretended) -> None:
    result = run("discover", "plan=true")
    assert (result.status, result.out) == (0, "would do nothing\n")
    assert pipeline.names == ["plan"]


def test_callbacks_can_be_chosen(run: Runner, pipeline: Pretended) -> None:
    for choice in ("none", "heatmaps", "report"):
        assert run("discover", QUIET, f"callbacks={choice}").status == 0
    assert pipeline.names == ["train", *("train", "discover", "heatmaps"), *("train", "discover", "report")]


def test_the_configuration_can_be_shown(run: Runner, pipeline: Pretended) -> None:
    result = run("train", "--cfg", "job", "sae.k=3")
    assert result.status == 0
    assert "\n  k: 3\n" in result.out
    assert not pipeline.calls


def test_run_folders_never_coincide(run: Runner, tmp_path: Path) -> None:
    for _ in range(2):
        run("train", QUIET)
    assert len(list((tmp_path / "outputs" / "runs").iterdir())) == 2


def test_a_sweep_goes_on_after_a_failed_job_and_says_which(run: Runner, pipeline: Pretended) -> None:
    pipeline.failures["train residuals_1"] = bad("a bad layer")
    result = run("train", "-m", QUIET, "layers=residuals_1,residuals_2", "sae.k=8,16")
    assert result.status == 1
    assert len(pipeline.calls) == 4
    assert result.err.splitlines() == [
        "error: job 0 (layers=residuals_1 sae.k=8): a bad layer",
        "error: job 1 (layers=residuals_1 sae.k=16): a bad layer",
    ]
    table = [line.split() for line in result.out.splitlines() if "residuals_2" in line and "fvu" not in line]
    assert ["2", "residuals_2", "8", "done", "0.1", "8", "0", "0.7"] in table


@pytest.mark.parametrize("multirun", [[], ["-m"]])
def test_a_folder_that_cannot_be_written_is_one_line(
    multirun: list[str], run: Runner, pipeline: Pretended, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    result = run("train", *multirun, "output_dir=taken")
    assert result.status == 1
    assert result.error.startswith("error: cannot write ")
    assert "taken" in result.error
    assert not pipeline.calls
