"""What a command says when its jobs are done: the verdict of a run, or the comparison of a multirun's jobs.

A multirun is closed by a W&B run of its own, in the group of its jobs. That is not left to Hydra's
``on_multirun_end``, which does not come when a job failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from refusal.callbacks.handover import read
from refusal.callbacks.outcome import STARTED
from refusal.callbacks.tracking import heldout, log_rows
from refusal.callbacks.wandb_run import group_of, open_run
from refusal.config.schemas import WandbLogger

Row = dict[str, object]

VERDICT = ("verdict", "index", "ci_low", "ci_high", "layer", "explained_share")
AUTOENCODER = ("fvu", "explained_variance", "l0", "dead_fraction")


def close() -> list[str]:
    """Print what there is to say of the newest run or multirun; return its failures, a line each."""
    if not STARTED:
        return []
    folder = STARTED.pop()
    if (folder / "multirun.yaml").is_file():
        return _close_multirun(folder)
    outcome = read(folder)
    if outcome.get("error"):
        return [outcome["error"]]
    if outcome.get("report"):
        print(last_line(outcome["report"]["verdict"]))
    return []


def last_line(verdict: Mapping[str, Any]) -> str:
    """Return the verdict as one line that begins with its word."""
    from refusal.report.words import sentence

    return f"{verdict['verdict']}: {sentence(verdict)}"


def _close_multirun(folder: Path) -> list[str]:
    jobs = {int(path.name): read(path) for path in folder.iterdir() if path.name.isdigit()}
    jobs = dict(sorted(jobs.items()))
    config = OmegaConf.load(folder / "multirun.yaml")
    if config.plan or not jobs:
        return _failures(jobs)
    tables = {"verdicts": verdict_rows(jobs), "autoencoders": autoencoder_rows(jobs)}
    for rows in tables.values():
        if rows:
            print(f"\n{text_table(rows)}", flush=True)
    failures = _failures(jobs)
    if config.logger.kind == "wandb":
        logger = WandbLogger(**OmegaConf.to_container(config.logger))  # type: ignore[arg-type]
        name = f"{config.command}: comparison of {len(jobs)} jobs"
        run = open_run(
            logger, Path(config.output_dir), name=name, job_type="comparison", group=group_of(config.command, folder)
        )
        for key, rows in tables.items():
            log_rows(run, f"comparison/{key}", rows)
        run.summary.update({"jobs": len(jobs), "failed": len(failures), "status": "failed" if failures else "done"})
        run.finish(exit_code=1 if failures else 0)
    return failures


def _failures(jobs: Mapping[int, Mapping[str, Any]]) -> list[str]:
    failures = []
    for settings, job in _with_settings(jobs):
        told = " ".join(f"{name}={value}" for name, value in settings.items() if name != "job")
        why = job.get("error") or "it did not come to its end"
        if job.get("status") != "done":
            failures.append(f"job {settings['job']} ({told}): {why}")
    return failures


def verdict_rows(jobs: Mapping[int, Mapping[str, Any]]) -> list[Row]:
    """Return a record for each job that has a verdict."""
    return [
        {**settings, **{name: verdict.get(name) for name in VERDICT}}
        for settings, job in _with_settings(jobs)
        if job.get("report")
        for verdict in [job["report"]["verdict"]]
    ]


def autoencoder_rows(jobs: Mapping[int, Mapping[str, Any]]) -> list[Row]:
    """Return a record for each job and site that has an autoencoder, with its figures on held-out rows."""
    return [
        {**settings, "site": site, **{name: figures.get(name) for name in AUTOENCODER}}
        for settings, job in _with_settings(jobs)
        if isinstance(job.get("result"), dict)
        for site, folder in job["result"].items()
        for figures in [heldout(Path(folder))]
    ]


def _with_settings(jobs: Mapping[int, Mapping[str, Any]]) -> list[tuple[Row, Mapping[str, Any]]]:
    """Pair each job with its number and what it alone was told."""
    told = {
        number: dict(override.split("=", 1) for override in job.get("overrides", [])) for number, job in jobs.items()
    }
    names = {name: None for overrides in told.values() for name in overrides}
    swept = [name for name in names if len({overrides.get(name) for overrides in told.values()}) > 1]
    return [({"job": number, **{name: told[number].get(name) for name in swept}}, job) for number, job in jobs.items()]


def text_table(rows: Sequence[Row]) -> str:
    """Return records with the same keys as aligned columns."""
    cells = [[_written(name) for name in rows[0]], *([_written(value) for value in row.values()] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def _written(value: object) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
