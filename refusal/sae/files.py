"""An autoencoder on disk: ``sae.safetensors`` and ``cfg.json``.

Tensors, float32: W_enc [d_model, d_sae], b_enc [d_sae], W_dec [d_sae, d_model] (rows of unit length), b_dec [d_model]
and scale []. With z = scale * x, the codes are max(0, (z - b_dec) W_enc + b_enc) at the chosen features, and
x_hat = (f W_dec + b_dec) / scale.

``cfg.json``: ``architecture`` (import path of the class), ``d_model``, ``d_sae``, ``k``, ``scale``, ``dtype``,
``model``, ``site``, and whatever else its maker said, such as fingerprints.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from refusal import InputError
from refusal.artifacts import read_json, write_atomic, write_json
from refusal.models.sites import Site
from refusal.sae.base import SparseAutoencoder

WEIGHTS, CONFIG = "sae.safetensors", "cfg.json"


def class_of(target: str) -> type[SparseAutoencoder]:
    """Return the class of an import path such as ``refusal.sae.topk.TopK``.

    Raises:
        InputError: There is no such class, or it is no autoencoder.
    """
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"there is no autoencoder '{target}' ({error}); one is refusal.sae.topk.TopK") from error
    if not (isinstance(found, type) and issubclass(found, SparseAutoencoder)):
        raise InputError(f"'{target}' is not a SparseAutoencoder; one is refusal.sae.topk.TopK")
    return found


def save_sae(folder: Path, sae: SparseAutoencoder, *, model: str, site: Site | str, cfg: Mapping[str, Any]) -> None:
    """Write an autoencoder into a folder.

    Args:
        folder: Where; made if need be.
        sae: The autoencoder.
        model: Name of the model whose activations it was trained on.
        site: The site.
        cfg: What else ``cfg.json`` should say.

    Raises:
        InputError: The disk refuses to write.
    """
    write_atomic(Path(folder) / WEIGHTS, save({name: value.contiguous() for name, value in _tensors(sae).items()}))
    kind = type(sae)
    own = {
        "architecture": f"{kind.__module__}.{kind.__qualname__}",
        "d_model": sae.d_model,
        "d_sae": sae.d_sae,
        "k": sae.k,
        "scale": float(sae.scale),
        "dtype": "float32",
        "model": model,
        "site": str(site),
    }
    write_json(Path(folder) / CONFIG, {**cfg, **own})


def load_sae(folder: Path, *, model: str | None = None, site: Site | str | None = None) -> SparseAutoencoder:
    """Read an autoencoder, on the CPU, ready for use.

    Args:
        folder: Where it is.
        model: Name of the model it must have been trained for.
        site: The site it must have been trained at.

    Raises:
        InputError: A file is missing or damaged, or the autoencoder belongs to another model or site.
    """
    cfg = read_json(Path(folder) / CONFIG)
    try:
        target, d_model, d_sae, k = str(cfg["architecture"]), int(cfg["d_model"]), int(cfg["d_sae"]), int(cfg["k"])
        own = {"model": cfg["model"], "site": cfg["site"]}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{Path(folder) / CONFIG} does not describe an autoencoder: {error!r}") from error
    for what, wanted in {"model": model, "site": site}.items():
        if wanted is not None and str(wanted) != own[what]:
            raise InputError(f"the autoencoder in {folder} was trained on {what} {own[what]}, not {wanted}")
    sae = class_of(target)(d_model, d_sae, k)
    _fill(sae, _read(Path(folder) / WEIGHTS), Path(folder) / WEIGHTS)
    return sae.eval().requires_grad_(False)


def _tensors(sae: SparseAutoencoder) -> dict[str, Tensor]:
    named = {"W_enc": sae.W_enc, "b_enc": sae.b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec, "scale": sae.scale}
    return {name: tensor.detach().to("cpu", torch.float32) for name, tensor in named.items()}


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"there is no {path}") from error
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is damaged ({error}); delete its folder and train again") from error


def _fill(sae: SparseAutoencoder, tensors: Mapping[str, Tensor], path: Path) -> None:
    for name, target in {"W_enc": sae.W_enc, **_parameters(sae)}.items():
        value = tensors.get(name)
        if value is None or value.shape != target.shape:
            found = "is missing" if value is None else f"has shape {list(value.shape)}, not {list(target.shape)}"
            raise InputError(f"{path} is damaged ({name} {found}); delete its folder and train again")
        if not bool(value.isfinite().all()):
            raise InputError(f"{path} is damaged ({name} has values that are not finite); train again")
        target.data.copy_(value)


def _parameters(sae: SparseAutoencoder) -> dict[str, Tensor]:
    return {"b_enc": sae.b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec, "scale": sae.scale}
