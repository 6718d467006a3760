"""SAELens (6.54): ``sae_weights.safetensors`` and ``cfg.json``, as ``SAE.load_from_disk`` reads them.

Tensors W_enc [d_in, d_sae], b_enc, W_dec [d_sae, d_in], b_dec, as here. Settings that change what is computed:

    apply_b_dec_to_input            false: the encoder reads x, not x - b_dec; folded into b_enc
    rescale_acts_by_decoder_norm    true: pre-codes are multiplied by the lengths of W_dec's rows, and codes divided by
                                    them before decoding; folded, so that the rows have unit length
    normalize_activations           anything but none: a scaling at run time, or one not folded yet; refused
    reshape_activations             hook_z: reads the heads' outputs, which are no site here; refused

Files of versions before 6.0 say ``activation_fn_str`` and ``hook_name`` at the top; those are read, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from refusal import InputError
from refusal.artifacts import write_json
from refusal.sae.architectures.batch_topk import BatchTopK
from refusal.sae.architectures.gated import Gated
from refusal.sae.architectures.jumprelu import JumpReLU
from refusal.sae.architectures.matryoshka import Matryoshka
from refusal.sae.architectures.relu import ReLU
from refusal.sae.architectures.topk import TopK
from refusal.sae.base import SparseAutoencoder
from refusal.sae.exchange.foreign import Options, Tensors, save_tensors
from refusal.sae.exchange.formats import Format, Imported, Origin, our_version
from refusal.sae.exchange.hook_names import TRANSFORMER_LENS, name_of, site_of
from refusal.sae.exchange.plain import Plain, log_threshold

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
LAYOUT = "6.54.12"  # the version whose files these are: older ones are converted when they are loaded
DEFAULT_K = 100

Files = tuple[dict[str, Any], dict[str, Tensor]]
"""Settings of the architecture, and its tensors."""


def read(folder: Path) -> Imported:
    """Read what SAELens saved, for use or as a checkpoint."""
    cfg, tensors = Options.read(folder / CONFIG), Tensors.safetensors(folder / WEIGHTS)
    for name in ("normalize_activations", "reshape_activations"):
        if cfg.get(name, None) not in (None, False, "none"):
            cfg.refuse(name, "it changes x in a way that its weights do not hold; fold it there before saving")
    if cfg.get("finetuning_scaling_factor", False):
        cfg.refuse("finetuning_scaling_factor", "codes are scaled once more; fold it into W_dec before saving")
    architecture = _architecture(cfg)
    if architecture not in READERS:
        raise InputError(
            f"{cfg.path}: the architecture '{architecture}' is none of ours; those are {', '.join(READERS)}"
        )
    plain = READERS[architecture](cfg, tensors)
    return Imported((plain if _reads_centred(cfg) else plain.reading_x()).build(), _origin(cfg))


def write(folder: Path, sae: SparseAutoencoder, origin: Origin) -> None:
    """Write what SAELens loads for use."""
    if type(sae) not in WRITERS:
        raise InputError(f"sae_lens has no architecture like {type(sae).__name__}; --to refusal keeps it")
    own, tensors = WRITERS[type(sae)](Plain.of(sae))
    save_tensors(folder / WEIGHTS, tensors)
    metadata = {"sae_lens_version": LAYOUT, "sae_lens_training_version": None, "refusal_version": our_version()}
    if origin.model is not None:
        metadata["model_name"] = origin.model
    if origin.site is not None:
        metadata["hook_name"] = name_of(origin.site, TRANSFORMER_LENS)
    cfg = {
        "d_in": sae.d_model,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": metadata,
        **own,
    }
    write_json(folder / CONFIG, cfg)


def _topk(cfg: Options, tensors: Tensors) -> Plain:
    plain = replace(_weights(TopK, cfg, tensors), settings={"k": _k(cfg)})
    return plain.with_unit_rows() if cfg.get("rescale_acts_by_decoder_norm", False) else plain


def _batch_topk(cfg: Options, tensors: Tensors) -> Plain:
    """A checkpoint: what is saved for use is a JumpReLU. Its threshold is that of the codes after any rescaling."""
    threshold = tensors.take("topk_threshold").clamp(min=0)
    return replace(_topk(cfg, tensors), kind=BatchTopK, more={"threshold": threshold})


def _matryoshka(cfg: Options, tensors: Tensors) -> Plain:
    plain, d_sae = _batch_topk(cfg, tensors), cfg.whole("d_sae")
    prefixes = [width / d_sae for width in sorted({*cfg.get("matryoshka_widths"), d_sae})]
    return replace(plain, kind=Matryoshka, settings={**plain.settings, "prefixes": prefixes})


def _jumprelu(cfg: Options, tensors: Tensors) -> Plain:
    plain = _weights(JumpReLU, cfg, tensors)
    return replace(plain, more={"log_threshold": log_threshold(tensors.take("threshold", len(plain.b_enc)))})


def _relu(cfg: Options, tensors: Tensors) -> Plain:
    return _weights(ReLU, cfg, tensors)


def _gated(cfg: Options, tensors: Tensors) -> Plain:
    plain = _weights(Gated, cfg, tensors, b_enc="b_gate")
    r_mag, b_mag = (tensors.take(name, len(plain.b_enc)) for name in ("r_mag", "b_mag"))
    if not _reads_centred(cfg):
        b_mag = b_mag + plain.pre_codes_of_b_dec * r_mag.exp()
    return replace(plain, more={"r_mag": r_mag, "b_mag": b_mag})


def _weights(kind: type[SparseAutoencoder], cfg: Options, tensors: Tensors, b_enc: str = "b_enc") -> Plain:
    d_model, d_sae = cfg.whole("d_in"), cfg.whole("d_sae")
    return Plain(
        kind,
        tensors.take("W_enc", d_model, d_sae),
        tensors.take(b_enc, d_sae),
        tensors.take("W_dec", d_sae, d_model),
        tensors.take("b_dec", d_model),
    )


def _reads_centred(cfg: Options) -> bool:
    return bool(cfg.get("apply_b_dec_to_input", True))


def _k(cfg: Options) -> int:
    old = cfg.within("activation_fn_kwargs")
    return old.whole("k") if "k" in old.content else cfg.whole("k", DEFAULT_K)


def _architecture(cfg: Options) -> str:
    """Its name; files of old versions say 'standard' of all, and name the activation."""
    for name in ("activation_fn_str", "activation_fn"):
        if cfg.text(name) == "topk":
            return "topk"
        cfg.expect(name, "relu", "codes here are what is positive of the pre-codes, unchanged")
    return cfg.text("architecture") or "standard"


def _origin(cfg: Options) -> Origin:
    said = {**cfg.content, **cfg.within("metadata").content}
    return Origin(said.get("model_name"), site_of(said.get("hook_name"), TRANSFORMER_LENS))


def _topk_files(plain: Plain) -> Files:
    return {"architecture": "topk", **plain.settings, "rescale_acts_by_decoder_norm": False}, _tensors(plain)


def _jumprelu_files(plain: Plain) -> Files:
    return {"architecture": "jumprelu"}, _tensors(plain, threshold=plain.more["log_threshold"].exp())


def _batch_topk_files(plain: Plain) -> Files:
    return {"architecture": "jumprelu"}, _tensors(plain, threshold=plain.more["threshold"].expand_as(plain.b_enc))


def _relu_files(plain: Plain) -> Files:
    return {"architecture": "standard"}, _tensors(plain)


def _gated_files(plain: Plain) -> Files:
    tensors = _tensors(plain, **plain.more)
    tensors["b_gate"] = tensors.pop("b_enc")
    return {"architecture": "gated"}, tensors


def _tensors(plain: Plain, **more: Tensor) -> dict[str, Tensor]:
    return {"W_enc": plain.W_enc, "b_enc": plain.b_enc, "W_dec": plain.W_dec, "b_dec": plain.b_dec, **more}


READERS: dict[str, Callable[[Options, Tensors], Plain]] = {
    "topk": _topk,
    "batchtopk": _batch_topk,
    "matryoshka_batchtopk": _matryoshka,
    "jumprelu": _jumprelu,
    "standard": _relu,
    "gated": _gated,
}
WRITERS: dict[type[SparseAutoencoder], Callable[[Plain], Files]] = {
    TopK: _topk_files,
    BatchTopK: _batch_topk_files,
    Matryoshka: _batch_topk_files,
    JumpReLU: _jumprelu_files,
    ReLU: _relu_files,
    Gated: _gated_files,
}
FORMAT = Format("sae_lens", (WEIGHTS, CONFIG), read, write)
