"""What a command says when its jobs are done: the verdict of a run, or the comparison of a multirun's jobs.

The comparison is a function that the options name (``sweep.target``): its table is printed, and stands with its
picture in the multirun's folder, beside ``autoencoders.csv``, which has a line for each autoencoder. A multirun is
closed by a W&B run of its own, in the group of its jobs. That is not left to Hydra's ``on_multirun_end``, which does
not come when a job failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from refusal.artifacts import write_atomic
from refusal.callbacks.handover import read
from refusal.callbacks.outcome import STARTED
from refusal.callbacks.tracking import log_rows
from refusal.callbacks.wandb_run import group_of, open_run
from refusal.config.schemas import WandbLogger
from refusal.progress import say
from refusal.study import locate
from refusal.sweeps.autoencoders import autoencoder_rows
from refusal.sweeps.job import Comparison, Job, read_quality, read_saes
from refusal.sweeps.table import csv_text, markdown, text_table, without_empty

Outcomes = Mapping[int, Mapping[str, Any]]


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
    outcomes = {int(path.name): read(path) for path in folder.iterdir() if path.name.isdigit()}
    outcomes = dict(sorted(outcomes.items()))
    failures = _failures(outcomes)
    config = OmegaConf.load(folder / "multirun.yaml")
    assert isinstance(config, DictConfig)
    if config.plan or not outcomes:
        return failures
    tables: dict[str, Sequence[Mapping[str, object]]] = {}
    picture: Path | None = None
    jobs = jobs_of(outcomes)
    if any(job.saes for job in jobs):  # collections leave nothing to compare
        comparison = locate(config.sweep.target)(jobs)
        tables = {"sweep": without_empty(comparison.rows), "autoencoders": autoencoder_rows(jobs)}
        picture = _write(folder, tables, comparison)
    if config.logger.kind == "wandb":
        _log(config, folder, tables, picture, {"jobs": len(outcomes), "failed": len(failures)})
    return failures


def jobs_of(outcomes: Outcomes) -> list[Job]:
    """Return the jobs with their results, from what they noted."""
    return [
        Job(
            number,
            settings,
            status=outcome.get("status", "failed"),
            saes=read_saes(result if isinstance(result := outcome.get("result"), dict) else {}),
            quality=read_quality(Path(outcome["quality"])) if outcome.get("quality") else {},
            circuits=Path(outcome["discovery"]) if outcome.get("discovery") else None,
            verdict=(outcome.get("report") or {}).get("verdict", {}),
        )
        for (number, outcome), settings in zip(outcomes.items(), _settings(outcomes), strict=True)
    ]


def _settings(outcomes: Outcomes) -> list[dict[str, str]]:
    """Return for each job what it alone was told."""
    told = [dict(override.split("=", 1) for override in outcome.get("overrides", [])) for outcome in outcomes.values()]
    names = dict.fromkeys(name for overrides in told for name in overrides)
    swept = [name for name in names if len({overrides.get(name) for overrides in told}) > 1]
    return [{name: overrides.get(name, "-") for name in swept} for overrides in told]


def _failures(outcomes: Outcomes) -> list[str]:
    failures = []
    for (number, outcome), settings in zip(outcomes.items(), _settings(outcomes), strict=True):
        told = " ".join(f"{name}={value}" for name, value in settings.items())
        why = outcome.get("error") or "it did not come to its end"
        if outcome.get("status") != "done":
            failures.append(f"job {number} ({told}): {why}")
    return failures


def _write(folder: Path, tables: Mapping[str, Sequence[Mapping[str, object]]], comparison: Comparison) -> Path | None:
    """Print the jobs' table; write it, the autoencoders' and the picture; return the picture's path."""
    from refusal.style import save_png

    print(f"\n{text_table(tables['sweep'])}\n", flush=True)
    write_atomic(folder / "sweep.md", markdown(tables["sweep"]))
    for name, rows in tables.items():
        write_atomic(folder / f"{name}.csv", csv_text(rows))
        say("sweep", "built", folder / f"{name}.csv")
    if comparison.figure is None:
        return None
    path = save_png(comparison.figure, folder / f"{comparison.name}.png")
    say("sweep", "built", path)
    return path


def _log(
    config: DictConfig,
    folder: Path,
    tables: Mapping[str, Sequence[Mapping[str, object]]],
    picture: Path | None,
    counts: Mapping[str, int],
) -> None:
    """Log the comparison as a W&B run of its own."""
    import wandb

    logger = WandbLogger(**OmegaConf.to_container(config.logger))  # type: ignore[arg-type]
    name, group = f"{config.command}: comparison of {counts['jobs']} jobs", group_of(config.command, folder)
    run = open_run(logger, Path(config.output_dir), name=name, job_type="comparison", group=group)
    for key, rows in tables.items():
        log_rows(run, f"comparison/{key}", rows)
    if picture is not None:
        run.log({f"comparison/{picture.stem}": wandb.Image(str(picture))})
    run.summary.update({**counts, "status": "failed" if counts["failed"] else "done"})
    run.finish(exit_code=1 if counts["failed"] else 0)
