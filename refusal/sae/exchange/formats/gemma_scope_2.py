"""Gemma Scope 2, of Gemma 3: as Gemma Scope, but in ``params.safetensors``, with a ``config.json``; read only.

The matrices are ``w_enc`` and ``w_dec``. The settings name the model and the place in it, in transformers' words; those
of transcoders name a second place, and are refused.

Source: the layout that SAELens 6.54 reads.
"""

from __future__ import annotations

from pathlib import Path

from refusal.sae.exchange.foreign import Options, Tensors
from refusal.sae.exchange.formats import Format, Imported, Origin
from refusal.sae.exchange.formats.gemma_scope import jumprelu
from refusal.sae.exchange.hook_names import site_of

CONFIG, WEIGHTS = "config.json", "params.safetensors"
OF_HEADS = ".self_attn.o_proj.input"
MODULES = {"residuals": "model.layers.{}.output", "mlp": "model.layers.{}.post_feedforward_layernorm.output"}


def read(folder: Path) -> Imported:
    """Read a folder such as ``resid_post/layer_12_width_16k_l0_medium``."""
    cfg, tensors = Options.read(folder / CONFIG), Tensors.safetensors(folder / WEIGHTS)
    cfg.expect("architecture", "jump_relu", "the others of this collection are jump_relu")
    here = cfg.text("hf_hook_point_in")
    if cfg.text("hf_hook_point_out") not in (None, here):
        cfg.refuse("hf_hook_point_out", "a transcoder predicts another place than it reads")
    if here and here.endswith(OF_HEADS):
        cfg.refuse("hf_hook_point_in", "the heads' outputs are no site here")
    return Imported(jumprelu(tensors, "w").build(), Origin(cfg.text("model_name"), site_of(here, MODULES)))


FORMAT = Format("gemma_scope_2", (WEIGHTS, CONFIG), read)
