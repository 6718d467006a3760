"""What a W&B run is given of a job's results: figures, tables, circuits, and the verdict in its summary.

Everything is read from the files that the job has written. Prompts and responses only with ``logger.texts=true``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refusal import pipeline
from refusal.artifacts import clean_name, read_json
from refusal.circuits.circuit import load_circuit
from refusal.circuits.features import FEATURES
from refusal.config.schemas import Options, WandbLogger
from refusal.sweeps.job import Job, read_quality, read_saes

SUMMARY = ("verdict", "index", "ci_low", "ci_high", "layer", "explained_share", "effective_circuits", "score_auc")
NODES = ("category", "side", "site", "feature", "importance", "scaled")


def log_results(run: Any, options: Options) -> None:
    """Log what this job has made."""
    places = pipeline.locations(options)
    figures = {f"data/{path.stem}": path for path in _pngs(places.data_analysis)}
    if options.command != "collect":
        for site, folder in places.saes.items():
            figures.update({f"training/{site}/{path.stem}": path for path in _pngs(folder / "training_plots")})
        run.summary.update(sae_figures(places.saes, places.quality))
        run.summary.update(quality_figures(read_quality(places.quality)))
    texts = isinstance(options.logger, WandbLogger) and options.logger.texts
    if options.callbacks.discovery:
        log_circuits(run, places.circuits, texts=texts)
    if options.callbacks.heatmaps:
        figures.update({f"similarity/{path.stem}": path for path in _pngs(places.visualizations)})
    if options.callbacks.report:
        figures.update({f"report/{path.stem}": path for path in _pngs(places.study_report)})
        verdict = read_json(places.study_report / "verdict.json")
        run.summary.update({name: verdict.get(name) for name in SUMMARY})
    log_figures(run, figures)
    if texts:
        log_texts(run, places.store)


def sae_figures(saes: Mapping[str, Path], quality: Path) -> dict[str, float | None]:
    """Return the held-out figures to sort runs by: of each autoencoder, and the median over all of them."""
    job = Job(saes=read_saes(saes), quality=read_quality(quality))
    names = ("fvu", "explained_variance", "cosine", "l0", "dead_fraction")
    return {
        **{f"heldout/{name}": job.heldout(name) for name in names},
        "heldout/recovered_refusal": job.recovered(),
        **{f"sae/{label}/{name}": one.figure(name) for label, one in job.saes.items() for name in names},
        **{f"sae/{label}/recovered_refusal": job.recovered_with(label) for label in job.saes},
    }


def quality_figures(saes: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Return what the model still does with each autoencoder in place, and what is read off five of its features.

    Args:
        saes: ``saes`` of ``quality.json``, by name.
    """
    figures: dict[str, float | None] = {}
    for name, one in saes.items():
        everywhere, splits = one["splice"]["all"], one["splice"]["splits"]
        figures[f"quality/{name}/kl"] = everywhere["kl"]["spliced"]
        figures[f"quality/{name}/recovered_ce"] = everywhere["recovered_ce"]
        for split, found in splits.items():
            figures[f"quality/{name}/recovered_refusal/{split}"] = found["recovered_refusal"]
            figures[f"quality/{name}/refusal_rate/{split}"] = found["refusal_rate"]["spliced"]
        for target, probed in one["probing"].items():
            figures[f"quality/{name}/auc/{target}"] = probed["features"]["5"]["auc"]
    return figures


def log_figures(run: Any, figures: Mapping[str, Path]) -> None:
    """Log pictures, all in one step."""
    import wandb

    if figures:
        run.log({name: wandb.Image(str(path)) for name, path in figures.items()})


def log_circuits(run: Any, folder: Path, *, texts: bool) -> None:
    """Log the nodes, the transfer matrix and split x refused as tables, and the files as an artifact.

    Args:
        run: The run.
        folder: The circuits'.
        texts: Whether files with texts of prompts are among them.
    """
    import wandb

    circuits = [load_circuit(path) for path in sorted(Path(folder).glob("*_circuit.json"))]
    nodes = [
        [circuit.category, circuit.side, node.site, node.feature, node.importance, node.scaled]
        for circuit in circuits
        for node in circuit.nodes
    ]
    tables = {"circuits/nodes": table(NODES, nodes)}
    for path in sorted(Path(folder).glob("*_comparison.json")):
        tables.update(_comparison_tables(read_json(path)))
    run.log(tables)
    artifact = wandb.Artifact(clean_name(f"circuits-{Path(folder).name}"), type="circuits")
    for path in sorted(path for path in Path(folder).glob("*.json") if texts or path.name != FEATURES):
        artifact.add_file(str(path), policy="immutable")
    run.log_artifact(artifact)


def _comparison_tables(comparison: Mapping[str, Any]) -> dict[str, Any]:
    tables = {}
    direct = (comparison.get("transfer") or {}).get("direct") or {}
    if matrix := direct.get("matrix"):
        names = comparison.get("voting") or comparison["categories"]
        names = names if len(names) == len(matrix) else comparison["categories"]
        rows = [[name, *row] for name, row in zip(names, matrix, strict=True)]
        tables["comparison/transfer"] = table(["removed", *names], rows)
    if by_split := comparison.get("refusal_by_split"):
        rows = [[split, n["refused"], n["total"] - n["refused"], n["total"]] for split, n in by_split.items()]
        tables["comparison/refused"] = table(["split", "refused", "complied", "total"], rows)
    return tables


def log_texts(run: Any, store: Path) -> None:
    """Log every prompt with its response."""
    from refusal.activations.store import ActivationStore

    columns = ["id", "category", "split", "text", "response", "refused", "refusal_score"]
    prompts = ActivationStore(store).prompts()[columns]
    run.log({"prompts": table(columns, prompts.values.tolist())})


def log_rows(run: Any, name: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Log records with the same keys as a table."""
    if rows:
        run.log({name: table(list(rows[0]), [list(row.values()) for row in rows])})


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Any:
    """Return a W&B table."""
    import wandb

    return wandb.Table(columns=list(columns), data=[list(row) for row in rows])  # type: ignore[arg-type]


def _pngs(folder: Path) -> list[Path]:
    """Return a folder's pictures, with those in folders below it."""
    return sorted(Path(folder).rglob("*.png"))
