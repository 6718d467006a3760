"""dictionary_learning (0.1): ``ae.pt``, a torch.save of named tensors, and ``config.json`` with its ``dict_class``.

What each class keeps, and calls its tensors, is below. ``ae.pt`` is a pickle; it is read with ``weights_only=True``,
so that nothing but tensors is made of it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from refusal import InputError
from refusal.artifacts import write_atomic, write_json
from refusal.models.sites import parse_site
from refusal.sae.architectures.topk import TopK
from refusal.sae.base import SparseAutoencoder
from refusal.sae.foreign import Options, Tensors
from refusal.sae.formats import Format, Imported, Origin, our_version
from refusal.sae.hook_names import name_of, site_of
from refusal.sae.plain import Plain

CONFIG, WEIGHTS = "config.json", "ae.pt"
SUBMODULES = {
    "residuals": "resid_post_layer_{}",
    "mlp": "mlp_out_layer_{}",
    "attention": "attention_out_layer_{}",
}
UNSET = torch.tensor(-1.0)  # of a threshold


def read(folder: Path) -> Imported:
    """Read the folder of a trainer."""
    trainer, tensors = Options.read(folder / CONFIG).within("trainer"), Tensors.torch(folder / WEIGHTS)
    kind = trainer.get("dict_class")
    if kind not in READERS:
        raise InputError(f"{trainer.path}: the dict_class '{kind}' is none of ours; those are {', '.join(READERS)}")
    site = site_of(trainer.text("submodule_name"), SUBMODULES)
    return Imported(READERS[kind](trainer, tensors).build(), Origin(trainer.text("lm_name"), site))


def write(folder: Path, sae: SparseAutoencoder, origin: Origin) -> None:
    """Write what ``load_dictionary`` reads."""
    if type(sae) not in WRITERS:
        raise InputError(f"dictionary_learning has no class like {type(sae).__name__}; --to refusal keeps it")
    kind, tensors_of = WRITERS[type(sae)]
    plain, file = Plain.of(sae), io.BytesIO()
    torch.save({name: tensor.contiguous() for name, tensor in tensors_of(plain).items()}, file)
    write_atomic(folder / WEIGHTS, file.getvalue())
    trainer = {
        "dict_class": kind,
        "activation_dim": sae.d_model,
        "dict_size": sae.d_sae,
        **plain.settings,
        "lm_name": origin.model,
        "layer": None if origin.site is None else parse_site(origin.site).layer,
        "submodule_name": None if origin.site is None else name_of(origin.site, SUBMODULES),
        "refusal_version": our_version(),
    }
    write_json(folder / CONFIG, {"trainer": trainer, "buffer": {"ctx_len": None}})


def _linear(kind: type[SparseAutoencoder], b_dec: str, tensors: Tensors, **settings: int) -> Plain:
    """Two nn.Linear, the decoder's bias apart."""
    d_sae, d_model = tensors.shape("encoder.weight")
    return Plain(
        kind,
        tensors.take("encoder.weight", d_sae, d_model).T,
        tensors.take("encoder.bias", d_sae),
        tensors.take("decoder.weight", d_model, d_sae).T,
        tensors.take(b_dec, d_model),
        settings,
    )


def _topk(trainer: Options, tensors: Tensors) -> Plain:
    return _linear(TopK, "b_dec", tensors, k=trainer.whole("k"))


def _topk_tensors(plain: Plain) -> dict[str, Tensor]:
    return {
        "encoder.weight": plain.W_enc.T,
        "encoder.bias": plain.b_enc,
        "decoder.weight": plain.W_dec.T,
        "b_dec": plain.b_dec,
        "k": torch.tensor(plain.settings["k"], dtype=torch.int32),
        "threshold": UNSET,
    }


READERS: dict[str, Callable[[Options, Tensors], Plain]] = {"AutoEncoderTopK": _topk}
WRITERS: dict[type[SparseAutoencoder], tuple[str, Callable[[Plain], dict[str, Tensor]]]] = {
    TopK: ("AutoEncoderTopK", _topk_tensors)
}
FORMAT = Format("dictionary_learning", (WEIGHTS, CONFIG), read, write, is_pickled=True)
