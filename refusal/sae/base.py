"""What every autoencoder has: weights, units, its use, and for how long each feature has not fired.

In scaled units, z = scale * x, whose variance summed over dimensions is d_model:

    pre-codes        p = (z - b_dec) W_enc + b_enc     [batch, d_sae]
    codes            f = ``activate``(p)                [batch, d_sae], nearly all of them 0
    reconstruction   z_hat = f W_dec + b_dec           [batch, d_model]

An architecture is one class, in one file of ``architectures``: it overrides ``activate``, and ``step``, which returns
the loss of a batch. Squared errors are means over dimensions, so they are about the fraction of variance unexplained.
Rows of W_dec have unit length: the optimiser divides them by their norm at every step (the gradient is not projected:
measured, it changes nothing under Adam).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from refusal import InputError
from refusal.sae.geometric_median import geometric_median
from refusal.sae.kernels.pairs import Pairs
from refusal.sae.kernels.products import sum_by_row
from refusal.sae.ranks import agree_on_idle

NEVER = 1 << 60  # rows
FIRST_WEIGHTS = 240_604_093  # so that made-up rows of the same seed do not share their directions with first weights


class Step(NamedTuple):
    """What a training step computed, in scaled units."""

    loss: Tensor
    x: Tensor
    """The rows, but for a shift that is the same for all, [batch, d_model]."""
    error: Tensor
    """x - x_hat without its graph, [batch, d_model]"""
    is_active: Tensor
    """Which of the codes that were computed are positive, bool, of any shape."""


class SparseAutoencoder(nn.Module, ABC):
    """A sparse autoencoder; an architecture overrides ``activate`` and ``step``.

    Args:
        d_model: Width of the activations.
        d_sae: Number of features.
        seed: What the first weights follow from.
        dead_after_rows: A feature counts as dead that was inactive for so many rows.

    Raises:
        InputError: There are no features.
    """

    settings: ClassVar[tuple[str, ...]] = ()
    """Arguments, kept as attributes of the same names, that it must have again to be loaded from disk."""
    only_in_training: ClassVar[tuple[str, ...]] = ("rows_since_fired",)
    """Parameters and buffers that its use does not depend on."""
    has_unit_rows: ClassVar[bool] = True
    """Whether the decoder's rows keep unit length; if not, the loss must not gain by their length."""
    k: int | None = None
    """Active features of a row; None where their number is not fixed."""

    W_dec: Tensor
    W_enc_rows: Tensor
    scale: Tensor
    rows_since_fired: Tensor

    def __init__(self, d_model: int, d_sae: int, *, seed: int = 0, dead_after_rows: int = NEVER) -> None:
        super().__init__()
        if d_sae < 1:
            raise InputError(f"sae.hidden_dim={d_sae} is not a positive number of features")
        self.d_model, self.d_sae, self.dead_after_rows = d_model, d_sae, dead_after_rows
        generator = torch.Generator().manual_seed(FIRST_WEIGHTS + seed)
        directions = torch.randn(d_sae, d_model, generator=generator)
        self.W_dec = nn.Parameter(functional.normalize(directions, dim=1))
        self.W_enc_rows = nn.Parameter(self.W_dec.detach().clone())  # tied at first; [d_sae, d_model], see kernels
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.b_dec = nn.Parameter(torch.zeros(d_model))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("rows_since_fired", torch.zeros(d_sae, dtype=torch.int64))

    # --- what an architecture decides ----------------------------------------------------------------

    @abstractmethod
    def activate(self, pre: Tensor) -> Tensor:
        """Return the codes of pre-codes, both [batch, d_sae]; those of a row do not depend on other rows."""

    @abstractmethod
    def step(self, batch: Tensor, progress: float) -> Step:
        """Return the loss of a batch, and count which features fired (``count_fired``).

        Args:
            batch: Rows in the model's units, [batch, d_model]; of several processes, this one's part of the batch.
            progress: The share of the training that is done, from 0 to 1, for losses that change as it goes on.
        """

    # --- its use, in the model's units ----------------------------------------------------------------

    @property
    def W_enc(self) -> Tensor:
        """The encoder, [d_model, d_sae]."""
        return self.W_enc_rows.T

    @property
    def directions(self) -> Tensor:
        """What one unit of each feature adds to x, in the model's units: [d_sae, d_model]."""
        return self.W_dec / self.scale

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes [..., d_sae] of activations [..., d_model] in the model's units; differentiable."""
        centred = x.reshape(-1, self.d_model) * self.scale - self.b_dec
        return self.activate(self.pre_codes(centred)).view(*x.shape[:-1], self.d_sae)

    def decode(self, f: Tensor) -> Tensor:
        """Return the reconstruction [..., d_model], in the model's units, of codes [..., d_sae]; differentiable."""
        return (f @ self.W_dec + self.b_dec) / self.scale

    @torch.no_grad()
    def sparse_codes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the active codes of rows [batch, d_model]: values and features, both [batch, n]; no gradient.

        A row with fewer than n active features has zeros besides.
        """
        f = self.encode(x)
        n = int((f > 0).sum(1).max()) if len(f) else 0
        values, indices = f.topk(max(1, n), dim=1, sorted=False)
        return values, indices

    @torch.no_grad()
    def decode_sparse(self, values: Tensor, indices: Tensor) -> Tensor:
        """Return the reconstruction [batch, d_model] of what ``sparse_codes`` gave."""
        summed = sum_by_row(values.reshape(-1), self.W_dec, Pairs.of(indices, self.d_sae))
        return (summed + self.b_dec) / self.scale

    # --- for training ----------------------------------------------------------------------------------

    @torch.no_grad()
    def fit_units(self, x: Tensor) -> None:
        """Set scale and b_dec by sample rows [n, d_model].

        In scaled units they have variance d_model; b_dec is their geometric median, which few far rows do not move.
        """
        x = x.to(self.W_dec)
        variance = (x - x.mean(0)).square().sum(1).mean()
        self.scale.fill_((self.d_model / variance).sqrt() if variance > 0 else 1.0)
        self.b_dec.copy_(geometric_median(x) * self.scale)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return what is trained, as ``kernels.adam.Adam`` takes it."""
        others = [weight for weight in self.parameters() if weight is not self.W_dec]
        return [{"params": [self.W_dec], "unit_rows": self.has_unit_rows}, {"params": others}]

    def pre_codes(self, centred: Tensor) -> Tensor:
        """Return all pre-codes [batch, d_sae] of scaled rows minus b_dec, [batch, d_model]; differentiable."""
        return torch.addmm(self.b_enc, centred, self.W_enc)

    @property
    def is_dead(self) -> Tensor:
        """Which features have not fired for so many rows that they count as dead, bool [d_sae]."""
        return self.rows_since_fired >= self.dead_after_rows

    def count_fired(self, n_rows: int, fired: Tensor) -> None:
        """Count for how many rows each feature has not fired.

        Args:
            n_rows: Rows of the batch; of several processes, of this one's part of it.
            fired: Which features fired, bool [d_sae].
        """
        self.rows_since_fired.add_(n_rows).masked_fill_(fired, 0)
        agree_on_idle(self.rows_since_fired, n_rows)


def ramp(progress: float, share: float) -> float:
    """Return what rises from 0 to 1 over the first share of a training, and then stays."""
    return min(1.0, progress / share) if share > 0 else 1.0
