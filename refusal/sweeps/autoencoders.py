"""Jobs by their autoencoders (medians over sites) and verdicts, and FVU against L0: for sweeps of sizes and options."""

from __future__ import annotations

from collections.abc import Sequence

from refusal.prompts.prompt import SPLITS
from refusal.sae.history import replicates
from refusal.sweeps.job import Comparison, Job, Row, distinct

FIGURES = ("fvu", "explained_variance", "cosine", "l0", "dead_fraction")
VERDICT = ("verdict", "index", "ci_low", "ci_high", "layer", "explained_share")


def compare(jobs: Sequence[Job]) -> Comparison:
    """Compare jobs by the figures of their autoencoders on held-out prompts, and by their verdicts."""
    from refusal.sae.figures.pareto import pareto_figure

    trained = distinct(jobs)
    ways = len(replicates(trained))
    title = f"FVU against L0 of {ways} ways to train an autoencoder, on held-out prompts"
    return Comparison([_row(job) for job in jobs], pareto_figure(title, trained) if ways > 1 else None, "pareto")


def autoencoder_rows(jobs: Sequence[Job]) -> list[Row]:
    """Return a record for each autoencoder of each job, with its figures on all held-out rows and on each split."""
    return [{**job.head, **_told(job, name)} for job in jobs for name in job.saes]


def _row(job: Job) -> Row:
    return {
        **job.head,
        "fvu": job.heldout("fvu"),
        **{f"fvu_{split}": job.heldout("fvu", split) for split in SPLITS},
        "l0": job.heldout("l0"),
        "dead": job.heldout("dead_fraction"),
        "recovered": job.recovered(),
        "faithfulness": job.faithfulness,
        **{name: job.verdict.get(name) for name in VERDICT},
    }


def _told(job: Job, name: str) -> Row:
    one = job.saes[name]
    return {
        "site": str(one.site),
        "part": one.part,
        "seed": one.history.get("seed"),
        "rows": one.rows,
        **{figure: one.figure(figure) for figure in FIGURES},
        "recovered_refusal": job.recovered_with(name),
        **{f"{figure}_{split}": one.figure(figure, split) for split in SPLITS for figure in FIGURES},
        **{f"recovered_refusal_{split}": job.recovered_with(name, split) for split in SPLITS},
        "folder": str(one.folder),
    }
