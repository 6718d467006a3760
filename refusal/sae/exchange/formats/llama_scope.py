"""Llama Scope: ``hyperparams.json`` and ``checkpoints/final.safetensors``, two nn.Linear with biases; read only.

Training saw x * s, with s = sqrt(d_model) / the average norm of x (``norm_activation: dataset-wise``). Folded as its
authors do it for use, the encoder's bias and the decoder's are divided by s, and the weights stay:

    f = JumpReLU or TopK of (x W_enc + b_enc / s),  x_hat = f W_dec + b_dec / s

``jump_relu_threshold`` is that of these codes, in the units of x, not of the scaled ones. Its TopK ranks codes
multiplied by the lengths of W_dec's rows, if ``sparsity_include_decoder_norm`` is set. Transcoders read one place
and write another, and are refused.

Source: He et al., 2024, arXiv 2410.20526; OpenMOSS's Language-Model-SAEs of that time. Not tried on a published file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from refusal.sae.architectures.jumprelu import JumpReLU
from refusal.sae.architectures.topk import TopK
from refusal.sae.exchange.foreign import Options, Tensors
from refusal.sae.exchange.formats import Format, Imported, Origin
from refusal.sae.exchange.hook_names import TRANSFORMER_LENS, site_of
from refusal.sae.exchange.plain import Plain, log_threshold

CONFIG, WEIGHTS = "hyperparams.json", "checkpoints/final.safetensors"
MODEL = "meta-llama/Llama-3.1-8B"  # of all that were published


def read(folder: Path) -> Imported:
    """Read a folder such as ``Llama3_1-8B-Base-L15R-8x``."""
    cfg, tensors = Options.read(folder / CONFIG), Tensors.safetensors(folder / WEIGHTS)
    cfg.expect("use_glu_encoder", False, "an encoder with a second, gating matrix is none of ours")
    if cfg.get("hook_point_out", None) != cfg.get("hook_point_in", None):
        cfg.refuse("hook_point_out", "a transcoder predicts another place than it reads")
    act = cfg.get("act_fn")
    if act not in READERS:
        cfg.refuse("act_fn", f"those that are ours are {', '.join(READERS)}")
    plain = READERS[act](cfg, _weights(cfg, tensors))
    centred = cfg.get("apply_decoder_bias_to_pre_encoder", True)
    site = site_of(cfg.text("hook_point_in"), TRANSFORMER_LENS)
    return Imported((plain if centred else plain.reading_x()).build(), Origin(MODEL, site))


def _weights(cfg: Options, tensors: Tensors) -> Plain:
    """The weights for x as it is."""
    d_sae, d_model = tensors.shape("encoder.weight")
    s = _input_scale(cfg, d_model)
    biased = cfg.get("use_decoder_bias", True)
    return Plain(
        TopK,
        tensors.take("encoder.weight", d_sae, d_model).T,
        tensors.take("encoder.bias", d_sae) / s,
        tensors.take("decoder.weight", d_model, d_sae).T,
        tensors.take("decoder.bias", d_model) / s if biased else torch.zeros(d_model),
    )


def _input_scale(cfg: Options, d_model: int) -> float:
    norm = cfg.get("norm_activation")
    if norm == "inference":  # folded already
        return 1.0
    if norm != "dataset-wise":
        cfg.refuse("norm_activation", "each x is scaled by a norm of its own, which no weights can hold")
    return math.sqrt(d_model) / cfg.within("dataset_average_activation_norm").positive("in")


def _topk(cfg: Options, weights: Plain) -> Plain:
    plain = replace(weights, settings={"k": cfg.whole("top_k")})
    return plain.with_unit_rows() if cfg.get("sparsity_include_decoder_norm", True) else plain


def _jumprelu(cfg: Options, weights: Plain) -> Plain:
    threshold = torch.full_like(weights.b_enc, cfg.positive("jump_relu_threshold"))
    return replace(weights, kind=JumpReLU, more={"log_threshold": log_threshold(threshold)})


READERS: dict[str, Callable[[Options, Plain], Plain]] = {"jumprelu": _jumprelu, "topk": _topk}
FORMAT = Format("llama_scope", (WEIGHTS, CONFIG), read)
