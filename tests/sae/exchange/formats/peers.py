"""Runs in an environment that has SAELens, sparsify and dictionary_learning, and nothing of ours.

Each line that it reads is a JSON list; it answers with a line, null or the traceback in JSON:

["load", LIBRARY, FOLDER, ROWS.npy, OUT.npy]          reconstruct with what the library loads from a folder
["save", LIBRARY, KIND, FOLDER, ROWS.npy, OUT.npy]    have it save one of random weights, and reconstruct
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

D_MODEL, D_SAE, K = 16, 64, 4


def load_sae_lens(folder: Path) -> Any:
    return import_module("sae_lens").SAE.load_from_disk(folder, device="cpu")


def load_sparsify(folder: Path) -> Any:
    coder = import_module("sparsify").SparseCoder.load_from_disk(folder, device="cpu")
    return lambda x: coder.decode(*coder.encode(x)[:2])


def load_dictionary_learning(folder: Path) -> Any:
    return import_module("dictionary_learning.utils").load_dictionary(str(folder), device="cpu")[0]


def save_sae_lens(kind: str, folder: Path) -> Path:
    """For use, or as a checkpoint to train on; what reconstructs is saved for use in any case."""
    library, checkpoint = import_module("sae_lens"), kind.endswith("_checkpoint")
    name = kind.removesuffix("_checkpoint")
    more: dict[str, Any] = {"k": K} if "TopK" in name else {}
    if name.startswith("Matryoshka"):
        more["matryoshka_widths"] = [16, D_SAE]
    centred = {"apply_b_dec_to_input": "JumpReLU" not in name}
    sae = getattr(library, f"{name}TrainingSAE")(
        getattr(library, f"{name}TrainingSAEConfig")(d_in=D_MODEL, d_sae=D_SAE, **more, **centred)
    )
    shake(sae)
    for_use = folder.with_name("for_use") if checkpoint else folder
    if checkpoint:
        sae.save_model(folder)
    sae.save_inference_model(for_use)
    return for_use


def save_sparsify(kind: str, folder: Path) -> Path:
    library = import_module("sparsify")
    options = {"multi_topk": kind == "multi_topk", "num_latents": 0 if kind == "expansion" else D_SAE}
    coder = library.SparseCoder(D_MODEL, library.SparseCoderConfig(k=K, expansion_factor=4, **options))
    shake(coder)
    coder.save_to_disk(folder)
    return folder


def save_dictionary_learning(kind: str, folder: Path) -> Path:
    utils = import_module("dictionary_learning.utils")
    more = {"k": K} if "TopK" in kind else {}
    groups = {"group_sizes": [16, D_SAE - 16]} if kind.startswith("Matryoshka") else {}
    sae = getattr(utils, kind)(D_MODEL, D_SAE, **more, **groups)
    shake(sae)
    folder.mkdir(parents=True)
    torch.save(sae.state_dict(), folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": kind, **more}}))
    return folder


def shake(module: torch.nn.Module) -> None:
    """Move every weight away from how it begins: biases from 0, lengths of rows from 1, thresholds to 0.5 and more."""
    generator = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator).to(value)
            if "threshold" in name:
                value.copy_(0.5 + 0.1 * noise.abs())
            else:
                value.add_(0.2 * noise)


@torch.no_grad()
def reconstruct(task: str, library: str, *rest: str) -> None:
    torch.manual_seed(0)
    *kind, folder, rows, out = rest
    place = globals()[f"save_{library}"](*kind, Path(folder)) if task == "save" else Path(folder)
    sae = globals()[f"load_{library}"](place)
    np.save(out, sae(torch.from_numpy(np.load(rows))).numpy())


def main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # where what the libraries print does not disturb
    for line in sys.stdin:
        answer = None
        try:
            reconstruct(*json.loads(line))
        except Exception:  # noqa: BLE001  whatever a library raises is the answer
            answer = traceback.format_exc()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
