"""EleutherAI's sparsify (1.3): ``sae.safetensors`` and ``cfg.json`` in a folder named by the hook point, ``layers.12``.

TopK of max(0, (x - b_dec) W_enc + b_enc), in nn.Linear's layout. Only TopK autoencoders exist there; its groupmax, skip
connections and transcoders are refused. ``multi_topk`` adds a term to its loss and changes nothing in use.
"""

from __future__ import annotations

from pathlib import Path

from refusal import InputError
from refusal.artifacts import write_json
from refusal.sae.architectures.topk import TopK
from refusal.sae.base import SparseAutoencoder
from refusal.sae.exchange.foreign import Options, Tensors, save_tensors
from refusal.sae.exchange.formats import Format, Imported, Origin, our_version
from refusal.sae.exchange.hook_names import site_of
from refusal.sae.exchange.plain import Plain

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
RUN_CONFIG = "config.json"  # of the training, in the folder above
HOOK_POINTS = (
    {"residuals": "layers.{}", "mlp": "layers.{}.mlp", "attention": "layers.{}.self_attn"},
    {"residuals": "layers.{}", "mlp": "layers.{}.mlp", "attention": "layers.{}.attention"},  # GPT-NeoX
    {"residuals": "h.{}", "mlp": "h.{}.mlp", "attention": "h.{}.attn"},  # GPT-2
)
DEFAULT_K, DEFAULT_EXPANSION = 32, 32


def read(folder: Path) -> Imported:
    """Read a hook point's folder."""
    cfg, tensors = Options.read(folder / CONFIG), Tensors.safetensors(folder / WEIGHTS)
    cfg.expect("activation", "topk", "only its topk activation is the same as one here")
    cfg.expect("skip_connection", False, "an autoencoder with a skip connection is none of ours")
    cfg.expect("transcode", False, "a transcoder predicts another place than it reads; train it without --transcode")
    cfg.expect("signed", False, "codes here are not negative")
    d_model = cfg.whole("d_in")
    d_sae = cfg.whole("num_latents", 0) or d_model * cfg.whole("expansion_factor", DEFAULT_EXPANSION)
    plain = Plain(
        TopK,
        tensors.take("encoder.weight", d_sae, d_model).T,
        tensors.take("encoder.bias", d_sae),
        tensors.take("W_dec", d_sae, d_model),
        tensors.take("b_dec", d_model),
        {"k": cfg.whole("k", DEFAULT_K)},
    )
    return Imported(plain.build(), _origin(folder, cfg))


def write(folder: Path, sae: SparseAutoencoder, origin: Origin) -> None:
    """Write a hook point's folder; what sparsify does not know is in a setting that it passes over."""
    if type(sae) is not TopK:
        raise InputError(f"sparsify has only TopK autoencoders, none like {type(sae).__name__}; --to sae_lens has")
    plain = Plain.of(sae)
    tensors = {
        "encoder.weight": plain.W_enc.T,
        "encoder.bias": plain.b_enc,
        "W_dec": plain.W_dec,
        "b_dec": plain.b_dec,
    }
    save_tensors(folder / WEIGHTS, tensors)
    cfg = {
        "activation": "topk",
        "expansion_factor": max(1, sae.d_sae // sae.d_model),
        "normalize_decoder": False,  # rows are as long as the input scaling made them
        "num_latents": sae.d_sae,
        **plain.settings,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": sae.d_model,
        "refusal": {**origin._asdict(), "version": our_version()},
    }
    write_json(folder / CONFIG, cfg)


def _origin(folder: Path, cfg: Options) -> Origin:
    ours, run = cfg.within("refusal"), folder.parent / RUN_CONFIG
    model = ours.text("model") or (Options.read(run).text("model") if run.is_file() else None)
    sites = (site_of(folder.name, patterns) for patterns in HOOK_POINTS)
    return Origin(model, ours.text("site") or next(filter(None, sites), None))


FORMAT = Format("sparsify", (WEIGHTS, CONFIG), read, write, mark=(CONFIG, "d_in"))
