"""Take an autoencoder that others have trained, in any format that is known, for a site of ours.

It is written as one of ours is, with the same figures on held-out prompts; its history says where it came from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from refusal import InputError
from refusal.activations.source import sections_of
from refusal.activations.store import ActivationStore
from refusal.artifacts import write_json
from refusal.models.sites import Site
from refusal.sae.base import SparseAutoencoder
from refusal.sae.exchange.formats import read
from refusal.sae.files import save_sae
from refusal.sae.quality.heldout import measure
from refusal.sae.training.train import SCHEMA_VERSION


def read_for(path: Path, kind: str | None, site: Site | str, d_model: int) -> SparseAutoencoder:
    """Read an autoencoder for a site.

    Args:
        path: Its folder, or one of its files.
        kind: The format; None: told by the files.
        site: The site.
        d_model: Width of the activations there.

    Raises:
        InputError: It cannot be read, or is of another site or width.
    """
    sae, origin = read(path, kind)
    if origin.site not in (None, str(site)):
        raise InputError(f"sae.path={path} is an autoencoder of {origin.site}, not of {site}")
    if sae.d_model != d_model:
        raise InputError(f"sae.path={path} is for activations of width {sae.d_model}; those at {site} have {d_model}")
    return sae


def adopt(
    store: ActivationStore,
    site: Site | str,
    folder: Path,
    *,
    path: Path,
    kind: str | None,
    model: str,
    kinds: Collection[str],
    cfg: Mapping[str, Any],
) -> None:
    """Write an autoencoder and its history into a folder.

    Args:
        store: The activations that it is measured on.
        site: The site.
        folder: Where to write: the temporary folder of ``artifacts.publish``.
        path: Where the autoencoder is.
        kind: Its format; None: told by the files.
        model: Name of the model.
        kinds: Kinds of the rows that it is measured on, besides the last prompt positions.
        cfg: What else ``cfg.json`` should say, such as fingerprints.

    Raises:
        InputError: It cannot be read, or is of another site or width, or the disk refuses.
    """
    sae = read_for(path, kind, site, store.d_model)
    heldout = measure(sae, store, site, sections_of(store, kinds))
    save_sae(folder, sae, model=model, site=site, cfg={**cfg, "imported": str(path)})
    history = {
        "schema_version": SCHEMA_VERSION,
        "model": model,
        "site": str(site),
        "hidden_dim": sae.d_sae,
        "k": sae.k,
        "imported": str(path),
        "train": [],
        "heldout": heldout,
    }
    write_json(folder / "history.json", history)
