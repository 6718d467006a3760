"""Jobs with autoencoders whose figures are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from refusal.sae.history import Trained
from refusal.sweeps.job import Job


def trained(
    site: str = "mlp_1",
    *,
    fvu: float = 0.2,
    toxic: float | None = None,
    part: str = "all",
    seed: int = 0,
    folder: str = "",
    **settings: Any,
) -> Trained:
    """An autoencoder with an FVU on all held-out rows, and another on the toxic ones."""
    settings = {"hidden_dim": 64, "k": 8, "part": part, **settings}
    quality = {"fvu": fvu, "l0": float(settings["k"]), "dead_fraction": 0.5}
    of_toxic = {"all": {**quality, "fvu": toxic}}
    splits = {} if toxic is None else {"toxic": of_toxic, "safe": {"all": quality}, "hard": {"all": quality}}
    history = {"model": "tiny", "site": site, "seed": seed, **settings}
    history |= {"train": [{"step": 9, "rows": 640}], "heldout": {"all": quality, "splits": splits}}
    return Trained(Path(folder or f"{site}-{seed}-{settings}"), history, settings)


def job(number: int, *saes: Trained, status: str = "done", **more: Any) -> Job:
    """A job that was told ``arm=<its number>``."""
    by_name = {f"{one.site} {one.part} {one.history['seed']}": one for one in saes}
    return Job(number, {"arm": f"arm{number}"}, status, by_name, **more)
