from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from refusal import InputError
from refusal.artifacts import read_json
from refusal.callbacks.handover import OUTCOME, failing, note, one_line, read
from refusal.callbacks.outcome import Outcome
from refusal.callbacks.steps import Discovery, Heatmaps, Report
from refusal.config.options import register
from tests.commands import ROOT, Pretended


@pytest.fixture
def config(tmp_path: Path) -> DictConfig:
    from hydra import compose, initialize_config_dir

    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("discover", overrides=[f"output_dir={tmp_path}"], return_hydra_config=True)
    with open_dict(config):
        config.hydra.runtime.output_dir = str(tmp_path)
        config.hydra.mode = RunMode.RUN
    return config


def ended(status: JobStatus = JobStatus.COMPLETED, value: object = None) -> JobReturn:
    job = JobReturn()
    job.status, job.return_value = status, value
    return job


@pytest.mark.parametrize(("step", "stage"), [(Discovery(), "discover"), (Heatmaps(), "heatmaps"), (Report(), "report")])
def test_a_step_does_one_thing_and_notes_what_it_returned(
    step: Discovery | Heatmaps | Report, stage: str, config: DictConfig, pipeline: Pretended, tmp_path: Path
) -> None:
    step.on_job_end(config, ended())
    assert pipeline.names == [stage]
    assert read(tmp_path)[step.name]


def test_nothing_follows_a_failed_job(config: DictConfig, pipeline: Pretended) -> None:
    Discovery().on_job_end(config, ended(JobStatus.FAILED, InputError("no")))
    assert not pipeline.calls


def test_a_step_that_raises_fails_the_job(config: DictConfig, pipeline: Pretended) -> None:
    pipeline.failures["discover"] = InputError("no toxic rows")
    job = ended()
    Discovery().on_job_end(config, job)
    assert job.status == JobStatus.FAILED
    with pytest.raises(InputError, match="no toxic rows"):
        _ = job.return_value


def test_the_outcome_of_a_failed_job_is_kept_and_hydra_is_told_nothing(config: DictConfig, tmp_path: Path) -> None:
    job = ended(JobStatus.FAILED, InputError("no\ntoxic rows"))
    Outcome().on_job_end(config, job)
    assert (read(tmp_path)["status"], read(tmp_path)["error"]) == ("failed", "no toxic rows")
    assert job.status == JobStatus.COMPLETED


def test_facts_add_up(tmp_path: Path) -> None:
    note(tmp_path, a={"mlp_1": Path("x")}, b=[Path("y")])
    note(tmp_path, c=1)
    assert read(tmp_path) == {"a": {"mlp_1": "x"}, "b": ["y"], "c": 1}


def test_an_outcome_that_the_disk_refuses_is_known_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.write_text("")  # a file: nothing can be written in it
    note(folder, status="started")
    note(folder, status="failed", error="No space left on device")
    assert read(folder) == {"status": "failed", "error": "No space left on device"}
    folder.unlink()
    note(folder, status="done")
    assert read_json(folder / OUTCOME) == {"status": "done", "error": "No space left on device"}


def test_an_error_in_one_line() -> None:
    assert one_line(InputError("no\n  rows")) == "no rows"
    assert one_line(ValueError("a\nb")) == "ValueError: a b"
    assert one_line(ValueError()) == "ValueError"


def test_an_interruption_is_no_failure() -> None:
    with pytest.raises(KeyboardInterrupt), failing(ended()):
        raise KeyboardInterrupt
