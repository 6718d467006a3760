"""The outermost callback: writes down how a job ended, and shows the traceback of what was not the user's mistake.

Hydra would print an error in several lines of its own. So a failed job is handed back to it as completed, and the
command reads the outcomes, says what failed in one line each, and exits with a status that tells.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from refusal import InputError, pipeline
from refusal.callbacks.handover import is_first_process, job_folder, note, one_line
from refusal.config.options import from_config

STARTED: list[Path] = []
"""Folders of the runs and multiruns that this process has started, the newest last."""


class Outcome(Callback):
    """Keeps each job's outcome."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the folder of a single run."""
        STARTED.append(Path(config.hydra.run.dir).absolute())

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the folder of a multirun."""
        STARTED.append(Path(config.hydra.sweep.dir).absolute())

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write down what was asked for."""
        if is_first_process():
            overrides = OmegaConf.to_container(config.hydra.overrides.task)
            note(job_folder(config), command=config.command, overrides=overrides, status="started", error=None)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Write down how it ended."""
        if not is_first_process():
            return
        if job_return.status == JobStatus.COMPLETED:
            note(job_folder(config), status="done", result=job_return.return_value, quality=_quality(config))
        else:
            error = job_return._return_value  # the property would raise it
            if not isinstance(error, InputError):
                traceback.print_exception(error)
            note(job_folder(config), status="failed", error=one_line(error))
        job_return.status, job_return.return_value = JobStatus.COMPLETED, None


def _quality(config: DictConfig) -> Path | None:
    """Where the job has written how good its autoencoders are, if it has any."""
    options = from_config(config)
    return None if options.plan or options.command == "collect" else pipeline.locations(options).quality
