"""What follows the training of the autoencoders, one callback a step: circuits, heatmaps, report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from refusal import pipeline
from refusal.artifacts import read_json
from refusal.callbacks.handover import failing, is_first_process, job_folder, note
from refusal.config.options import from_config
from refusal.config.schemas import Options


class Step(Callback, ABC):
    """Acts when a job has ended well, if ``callbacks.<name>`` says so."""

    name: ClassVar[str]

    @abstractmethod
    def act(self, options: Options) -> object:
        """Do the step; what it returns goes into the job's outcome."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Do the step, or mark the job as failed."""
        if job_return.status != JobStatus.COMPLETED or not is_first_process():
            return
        with failing(job_return):
            options = from_config(config)
            if getattr(options.callbacks, self.name) and not options.plan:
                note(job_folder(config), **{self.name: self.act(options)})


class Discovery(Step):
    """Circuits and their comparison."""

    name = "discovery"

    def act(self, options: Options) -> object:
        """Find them."""
        return pipeline.discover(options)


class Heatmaps(Step):
    """The similarity heatmaps."""

    name = "heatmaps"

    def act(self, options: Options) -> object:
        """Draw them."""
        return pipeline.heatmaps(options)


class Report(Step):
    """The verdict and the report."""

    name = "report"

    def act(self, options: Options) -> object:
        """Write them; hand over the verdict of this very study, for another may be the latest by then."""
        folder = pipeline.report(options)
        verdict = read_json(pipeline.locations(options).study_report / "verdict.json")
        return {"folder": folder, "verdict": verdict}
