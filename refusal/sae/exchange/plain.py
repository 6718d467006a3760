"""An autoencoder as other libraries know it: no input scaling, everything in the model's units.

    codes            f = rule((x - b_dec) W_enc + b_enc)
    reconstruction   x_hat = f W_dec + b_dec

Ours has scaled units z = scale * x. They fold into the weights, W_enc * scale, W_dec / scale and b_dec / scale, and
the codes stay the same; so do thresholds. Rows of W_dec then have the length 1 / scale, or any, if they were imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from refusal.sae.base import SparseAutoencoder


@dataclass(frozen=True)
class Plain:
    """The weights of an autoencoder, float32 on the CPU."""

    kind: type[SparseAutoencoder]
    W_enc: Tensor
    """[d_model, d_sae]"""
    b_enc: Tensor
    """[d_sae]"""
    W_dec: Tensor
    """[d_sae, d_model]"""
    b_dec: Tensor
    """[d_model]"""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the kind, such as ``k``."""
    more: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors that the kind adds, such as ``threshold``; they are those of the codes, which the scale leaves alone."""

    @classmethod
    def of(cls, sae: SparseAutoencoder) -> Plain:
        """Return the weights of one of ours."""
        common = {"W_dec", "W_enc_rows", "b_enc", "b_dec", "scale", *sae.only_in_training}
        return cls(
            type(sae),
            _copy(sae.W_enc * sae.scale),
            _copy(sae.b_enc),
            _copy(sae.W_dec / sae.scale),
            _copy(sae.b_dec / sae.scale),
            {name: getattr(sae, name) for name in sae.settings},
            {name: _copy(tensor) for name, tensor in sae.state_dict().items() if name not in common},
        )

    def build(self) -> SparseAutoencoder:
        """Return one of ours, ready for use: its scale is 1.

        Raises:
            InputError: A setting makes no sense, such as more active features than there are.
        """
        sae = self.kind(*self.W_enc.shape, **self.settings)
        own = {"W_enc": self.W_enc, "b_enc": self.b_enc, "W_dec": self.W_dec, "b_dec": self.b_dec, **self.more}
        for name, tensor in own.items():
            getattr(sae, name).data.copy_(tensor)
        return sae.eval().requires_grad_(False)

    @property
    def pre_codes_of_b_dec(self) -> Tensor:
        """b_dec W_enc, [d_sae]: what separates the biases of an encoder that reads x from one that reads x - b_dec."""
        parts = self.W_enc.split(4096, dim=1)  # in double precision it would take twice the memory at once
        return torch.cat([(self.b_dec.double() @ part.double()).float() for part in parts])

    def reading_x(self) -> Plain:
        """Return these weights, which were an encoder's that reads x, as those of one that reads x - b_dec."""
        return replace(self, b_enc=self.b_enc + self.pre_codes_of_b_dec)

    def with_unit_rows(self) -> Plain:
        """Return the same autoencoder with rows of W_dec of unit length; codes are multiplied by the lengths."""
        norm = self.W_dec.norm(dim=1).clamp(min=1e-8)
        return replace(self, W_enc=self.W_enc * norm, b_enc=self.b_enc * norm, W_dec=self.W_dec / norm[:, None])


def log_threshold(threshold: Tensor) -> Tensor:
    """Return a JumpReLU's threshold as ours keeps it; one that is not positive changes nothing above zero."""
    return threshold.clamp(min=torch.finfo(torch.float32).tiny).log()


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32).clone(memory_format=torch.contiguous_format)
