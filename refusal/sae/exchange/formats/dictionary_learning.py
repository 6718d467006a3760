"""dictionary_learning (0.1): ``ae.pt``, a torch.save of named tensors, and ``config.json`` with its ``dict_class``.

What each class keeps, and calls its tensors, is below. ``ae.pt`` is a pickle; it is read with ``weights_only=True``,
so that nothing but tensors is made of it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from refusal import InputError
from refusal.artifacts import write_atomic, write_json
from refusal.models.sites import parse_site
from refusal.sae.architectures.batch_topk import BatchTopK
from refusal.sae.architectures.gated import Gated
from refusal.sae.architectures.jumprelu import JumpReLU
from refusal.sae.architectures.matryoshka import Matryoshka
from refusal.sae.architectures.relu import ReLU
from refusal.sae.architectures.topk import TopK
from refusal.sae.base import SparseAutoencoder
from refusal.sae.exchange.foreign import Options, Tensors
from refusal.sae.exchange.formats import Format, Imported, Origin, our_version
from refusal.sae.exchange.hook_names import name_of, site_of
from refusal.sae.exchange.plain import Plain, log_threshold

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
    if "k" in tensors and trainer.whole("k") != tensors.count("k"):
        trainer.refuse("k", f"{tensors.path} says {tensors.count('k')}")
    site = site_of(trainer.text("submodule_name"), SUBMODULES)
    return Imported(READERS[kind](tensors).build(), Origin(trainer.text("lm_name"), site))


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
        **({"k": plain.settings["k"]} if "k" in plain.settings else {}),
        "lm_name": origin.model,
        "layer": None if origin.site is None else parse_site(origin.site).layer,
        "submodule_name": None if origin.site is None else name_of(origin.site, SUBMODULES),
        "refusal_version": our_version(),
    }
    write_json(folder / CONFIG, {"trainer": trainer, "buffer": {"ctx_len": None}})


def _topk(tensors: Tensors) -> Plain:
    return replace(_linear(TopK, tensors), settings={"k": tensors.count("k")})


def _batch_topk(tensors: Tensors) -> Plain:
    more = {"threshold": tensors.take("threshold").clamp(min=0)}  # -1: not set yet
    return replace(_topk(tensors), kind=BatchTopK, more=more)


def _matryoshka(tensors: Tensors) -> Plain:
    plain = _rows(Matryoshka, tensors)
    sizes, d_sae = tensors.vector("group_sizes").cumsum(0), len(plain.b_enc)
    settings = {"k": tensors.count("k"), "prefixes": [float(size) / d_sae for size in sizes]}
    return replace(plain, settings=settings, more={"threshold": tensors.take("threshold").clamp(min=0)})


def _jumprelu(tensors: Tensors) -> Plain:
    plain = _rows(JumpReLU, tensors).reading_x()
    return replace(plain, more={"log_threshold": log_threshold(tensors.take("threshold", len(plain.b_enc)))})


def _relu(tensors: Tensors) -> Plain:
    return _linear(ReLU, tensors, b_dec="bias")


def _relu_of_x(tensors: Tensors) -> Plain:
    return _linear(ReLU, tensors, b_dec="decoder.bias").reading_x()


def _gated(tensors: Tensors) -> Plain:
    plain = _linear(Gated, tensors, b_enc="gate_bias", b_dec="decoder_bias")
    d_sae = len(plain.b_enc)
    return replace(plain, more={"r_mag": tensors.take("r_mag", d_sae), "b_mag": tensors.take("mag_bias", d_sae)})


def _linear(
    kind: type[SparseAutoencoder], tensors: Tensors, b_enc: str = "encoder.bias", b_dec: str = "b_dec"
) -> Plain:
    """The weights of two nn.Linear."""
    d_sae, d_model = tensors.shape("encoder.weight")
    return Plain(
        kind,
        tensors.take("encoder.weight", d_sae, d_model).T,
        tensors.take(b_enc, d_sae),
        tensors.take("decoder.weight", d_model, d_sae).T,
        tensors.take(b_dec, d_model),
    )


def _rows(kind: type[SparseAutoencoder], tensors: Tensors) -> Plain:
    """The weights of the classes that name them as here."""
    d_model, d_sae = tensors.shape("W_enc")
    return Plain(
        kind,
        tensors.take("W_enc", d_model, d_sae),
        tensors.take("b_enc", d_sae),
        tensors.take("W_dec", d_sae, d_model),
        tensors.take("b_dec", d_model),
    )


def _topk_tensors(plain: Plain) -> dict[str, Tensor]:
    named = _linear_tensors(plain) | {"encoder.bias": plain.b_enc, "b_dec": plain.b_dec}
    return named | {"k": _k(plain), "threshold": plain.more.get("threshold", UNSET)}


def _matryoshka_tensors(plain: Plain) -> dict[str, Tensor]:
    ends = [round(share * len(plain.b_enc)) for share in plain.settings["prefixes"]]
    sizes = torch.tensor([0, *ends]).diff()
    return _row_tensors(plain) | {"k": _k(plain), "group_sizes": sizes, "threshold": plain.more["threshold"]}


def _jumprelu_tensors(plain: Plain) -> dict[str, Tensor]:
    b_enc = plain.b_enc - plain.pre_codes_of_b_dec  # its encoder reads x
    return _row_tensors(plain) | {"b_enc": b_enc, "threshold": plain.more["log_threshold"].exp()}


def _relu_tensors(plain: Plain) -> dict[str, Tensor]:
    return _linear_tensors(plain) | {"encoder.bias": plain.b_enc, "bias": plain.b_dec}


def _gated_tensors(plain: Plain) -> dict[str, Tensor]:
    biases = {"gate_bias": plain.b_enc, "mag_bias": plain.more["b_mag"], "decoder_bias": plain.b_dec}
    return _linear_tensors(plain) | biases | {"r_mag": plain.more["r_mag"]}


def _linear_tensors(plain: Plain) -> dict[str, Tensor]:
    return {"encoder.weight": plain.W_enc.T, "decoder.weight": plain.W_dec.T}


def _row_tensors(plain: Plain) -> dict[str, Tensor]:
    return {"W_enc": plain.W_enc, "b_enc": plain.b_enc, "W_dec": plain.W_dec, "b_dec": plain.b_dec}


def _k(plain: Plain) -> Tensor:
    return torch.tensor(plain.settings["k"], dtype=torch.int32)


READERS: dict[str, Callable[[Tensors], Plain]] = {
    "AutoEncoderTopK": _topk,
    "BatchTopKSAE": _batch_topk,
    "MatryoshkaBatchTopKSAE": _matryoshka,
    "JumpReluAutoEncoder": _jumprelu,
    "AutoEncoder": _relu,
    "AutoEncoderNew": _relu_of_x,
    "GatedAutoEncoder": _gated,
}
WRITERS: dict[type[SparseAutoencoder], tuple[str, Callable[[Plain], dict[str, Tensor]]]] = {
    TopK: ("AutoEncoderTopK", _topk_tensors),
    BatchTopK: ("BatchTopKSAE", _topk_tensors),
    Matryoshka: ("MatryoshkaBatchTopKSAE", _matryoshka_tensors),
    JumpReLU: ("JumpReluAutoEncoder", _jumprelu_tensors),
    ReLU: ("AutoEncoder", _relu_tensors),
    Gated: ("GatedAutoEncoder", _gated_tensors),
}
FORMAT = Format("dictionary_learning", (WEIGHTS, CONFIG), read, write, is_pickled=True)
