"""Trainings whose figures are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from refusal.artifacts import write_json
from refusal.sae.history import HISTORY, Trained, read_trained


def history(site: str = "mlp_3", *, fvu: float | None = 0.2, k: int = 8, **more: Any) -> dict[str, Any]:
    """The content of a ``history.json``."""
    points = [
        {"step": i, "rows": 64 * (i + 1), "loss": 10.0**-i, "fvu": 10.0**-i, "l0": 8.0, "dead_features": i}
        for i in range(5)
    ]
    quality = {"n_rows": 9, "fvu": fvu, "explained_variance": fvu, "cosine": 0.9, "l0": float(k), "dead_fraction": 0.1}
    own = {"schema_version": 1, "model": "tiny $x$", "site": site, "hidden_dim": 64, "k": k, **more}
    heldout = {"all": quality, "last": {**quality, "fvu": 0.1}, "splits": {"toxic": {"all": quality}}}
    return {**own, "train": points, "heldout": heldout}


def write(folder: Path, content: dict[str, Any], *, sampler: str = "uniform", **sae: Any) -> Trained:
    """Write a training's folder as ``train.py`` leaves it, as far as pictures read it; return what they read."""
    write_json(folder / HISTORY, content)
    options = {"sae": {"name": "topk", **sae}, "sampler": {"target": f"refusal.activations.samplers.{sampler}.weights"}}
    write_json(folder / "card.json", {"config": options, "content": "67911dd32fb2"})
    return read_trained(folder)
