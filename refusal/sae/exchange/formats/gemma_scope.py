"""Gemma Scope, of Gemma 2: JumpReLU autoencoders in ``params.npz``; read only.

Arrays W_enc [d_model, d_sae], b_enc, W_dec [d_sae, d_model], b_dec and threshold [d_sae]. The encoder reads x, not
x - b_dec. The file does not say which model and site it is of; its place in the repository does. Those of attention
read the heads' outputs, which are no site here.

Source: Lieberum et al., 2024, arXiv 2408.05147, and its tutorial.
"""

from __future__ import annotations

from pathlib import Path

from refusal.sae.architectures.jumprelu import JumpReLU
from refusal.sae.exchange.foreign import Tensors
from refusal.sae.exchange.formats import Format, Imported, Origin
from refusal.sae.exchange.plain import Plain, log_threshold

WEIGHTS = "params.npz"


def read(folder: Path) -> Imported:
    """Read a folder such as ``layer_20/width_16k/average_l0_71``."""
    return Imported(jumprelu(Tensors.npz(folder / WEIGHTS), "W").build(), Origin())


def jumprelu(tensors: Tensors, W: str) -> Plain:
    """Return the weights of an encoder that reads x; the names of the two matrices begin with ``W``."""
    d_model, d_sae = tensors.shape(f"{W}_enc")
    plain = Plain(
        JumpReLU,
        tensors.take(f"{W}_enc", d_model, d_sae),
        tensors.take("b_enc", d_sae),
        tensors.take(f"{W}_dec", d_sae, d_model),
        tensors.take("b_dec", d_model),
        more={"log_threshold": log_threshold(tensors.take("threshold", d_sae))},
    )
    return plain.reading_x()


FORMAT = Format("gemma_scope", (WEIGHTS,), read)
