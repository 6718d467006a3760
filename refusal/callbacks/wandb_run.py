"""One W&B run a job: opened before it, fed by the training meanwhile, given the results and closed after it.

Offline by default: runs are files in ``OUTPUT_DIR/wandb``, no account is needed, and nothing is printed. The jobs of a
multirun share a group. A job that was killed goes on in its run (``run_id``). The training logs its curves with
Lightning's ``WandbLogger(experiment=wandb.run)``.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from refusal import InputError
from refusal.callbacks.handover import failing, is_first_process, job_folder, note, one_line
from refusal.callbacks.run_id import RunId
from refusal.callbacks.tracking import log_results
from refusal.config.options import from_config
from refusal.config.schemas import WandbLogger

TAGGED = ("model", "data", "layers", "sae", "sampler", "circuits")


class WandbRun(Callback):
    """Opens and closes the job's run, where ``logger`` is W&B."""

    def __init__(self) -> None:
        self._id: RunId | None = None

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Open the run; where that fails, tell the job to stop before it begins."""
        try:
            options = from_config(config)
        except InputError:
            return  # the job says so itself
        if not is_first_process() or options.plan or not isinstance(options.logger, WandbLogger):
            return
        overrides = [str(override) for override in config.hydra.overrides.task]
        chosen = config.hydra.runtime.choices
        in_multirun = config.hydra.mode == RunMode.MULTIRUN
        try:
            job = {name: value for name, value in asdict(options).items() if name != "force"}
            self._id = RunId(Path(options.output_dir) / "wandb" / "unfinished", job)
            open_run(
                options.logger,
                Path(options.output_dir),
                name=" ".join([options.command, *overrides])[:128],
                job_type=options.command,
                group=group_of(options.command, config.hydra.sweep.dir) if in_multirun else None,
                tags=[f"{group}: {chosen[group]}"[:64] for group in TAGGED],
                config=asdict(options),
                id=self._id.value,
                resume="allow",
            )
        except Exception as error:  # noqa: BLE001  the job reports it
            note(job_folder(config), stop=one_line(error))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Give the run the job's results, or its error, and close it."""
        wandb: Any = sys.modules.get("wandb")
        if wandb is None or wandb.run is None or not is_first_process():
            return
        run = wandb.run
        if job_return.status == JobStatus.COMPLETED:
            with failing(job_return):
                log_results(run, from_config(config))
        failed = job_return.status != JobStatus.COMPLETED
        run.summary["status"] = "failed" if failed else "done"
        if failed:
            run.summary["error"] = one_line(job_return._return_value)
        run.finish(exit_code=1 if failed else 0)
        if self._id is not None:
            self._id.close(is_done=not failed)


def group_of(command: str, sweep_folder: str | Path) -> str:
    """Return the group of a multirun's runs: its command and the time it started."""
    return f"{command} {Path(sweep_folder).name}"


def open_run(logger: WandbLogger, output_dir: Path, **what: Any) -> Any:
    """Open a W&B run that prints nothing.

    Args:
        logger: Offline or online, and which project.
        output_dir: Its files go into ``output_dir/wandb``, its copies of artifacts and its cache, too.
        what: Name, group, tags, config, as in ``wandb.init``.

    Raises:
        InputError: It should be online, and there is no account.
    """
    folder = output_dir.absolute() / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    for place in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
        os.environ.setdefault(place, str(folder))
    import wandb
    from wandb.errors import UsageError

    settings = wandb.Settings(
        silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True, x_save_requirements=False
    )
    try:
        return wandb.init(
            project=logger.project,
            mode=logger.mode,  # type: ignore[arg-type]
            dir=str(folder.parent),
            settings=settings,
            **what,
        )
    except UsageError as error:
        raise InputError(f"logger=wandb needs an account, logger=wandb_offline none: {error}") from error
