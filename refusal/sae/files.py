"""An autoencoder on disk: ``sae.safetensors`` and ``cfg.json``.

Tensors, float32: W_enc [d_model, d_sae], b_enc [d_sae], W_dec [d_sae, d_model], b_dec [d_model], scale [], and what
else the architecture has, such as ``threshold``. With z = scale * x, the pre-codes are (z - b_dec) W_enc + b_enc, the
codes are those that its ``activate`` keeps, and x_hat = (f W_dec + b_dec) / scale.

``cfg.json``: ``architecture`` (import path of the class), ``d_model``, ``d_sae``, the class's ``settings`` such as
``k``, ``scale``, ``dtype``, ``model``, ``site``, and whatever else its maker said, such as fingerprints.
"""

from __future__ import annotations

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
from refusal.sae.build import class_of

WEIGHTS, CONFIG = "sae.safetensors", "cfg.json"


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
    tensors = {name: tensor.to("cpu", torch.float32).contiguous() for name, tensor in _tensors(sae).items()}
    write_atomic(Path(folder) / WEIGHTS, save(tensors))
    kind = type(sae)
    own = {
        "architecture": f"{kind.__module__}.{kind.__qualname__}",
        "d_model": sae.d_model,
        "d_sae": sae.d_sae,
        **{name: getattr(sae, name) for name in sae.settings},
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
        for what, wanted in {"model": model, "site": site}.items():
            if wanted is not None and str(wanted) != cfg[what]:
                raise InputError(f"the autoencoder in {folder} was trained on {what} {cfg[what]}, not {wanted}")
        kind = class_of(str(cfg["architecture"]))
        sae = kind(int(cfg["d_model"]), int(cfg["d_sae"]), **{name: cfg[name] for name in kind.settings})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{Path(folder) / CONFIG} does not describe an autoencoder: {error!r}") from error
    _fill(sae, _read(Path(folder) / WEIGHTS), Path(folder) / WEIGHTS)
    return sae.eval().requires_grad_(False)


def _tensors(sae: SparseAutoencoder) -> dict[str, Tensor]:
    """Return what the file holds, by the names it has there; the tensors share memory with the autoencoder."""
    own = {name: tensor for name, tensor in sae.state_dict().items() if name not in sae.only_in_training}
    return {"W_enc": own.pop("W_enc_rows").T, **own}


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"there is no {path}") from error
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is damaged ({error}); delete its folder and train again") from error


def _fill(sae: SparseAutoencoder, tensors: Mapping[str, Tensor], path: Path) -> None:
    for name, target in _tensors(sae).items():
        value = tensors.get(name)
        if value is None or value.shape != target.shape:
            found = "is missing" if value is None else f"has shape {list(value.shape)}, not {list(target.shape)}"
            raise InputError(f"{path} is damaged ({name} {found}); delete its folder and train again")
        if not bool(value.isfinite().all()):
            raise InputError(f"{path} is damaged ({name} has values that are not finite); train again")
        target.copy_(value)
