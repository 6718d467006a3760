"""The loss of autoencoders with k active features a row, and its gradients at the active pairs alone.

    z_hat_j = sum over the active i of prefix j of f_i W_dec[i], + b_dec
    loss    = mean over prefixes j, rows and dimensions of (z - z_hat_j)^2
              + aux_coefficient * mean of (e - e_hat)^2,    e = z - z_hat of the last prefix, a constant here

e_hat is AuxK's: the reconstruction of e by the ``aux_k`` largest pre-codes of the dead features. Those are so few that
dense products over them alone are faster than sums over pairs.

Source: Gao et al., 2024, arXiv 2406.04093, sections 2.3, 2.4 and appendix A; prefixes: Bussmann et al., 2025, arXiv
2503.17547.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from refusal.sae.kernels.pairs import Pairs
from refusal.sae.kernels.products import gradients, largest, reconstruct


class Weights(NamedTuple):
    """What is trained."""

    W_enc_rows: Tensor
    """The encoder, one row a feature, [d_sae, d_model]."""
    b_enc: Tensor
    """[d_sae]"""
    W_dec: Tensor
    """[d_sae, d_model]"""
    b_dec: Tensor
    """[d_model]"""


class Revival(NamedTuple):
    """Which features AuxK brings back."""

    dead: Tensor
    """Numbers of the dead features, int64 [n_dead]."""
    aux_k: int
    """How many of them reconstruct a row's error."""
    coefficient: float


class Reconstruction(NamedTuple):
    """What came out; only the loss has a gradient."""

    loss: Tensor
    error: Tensor
    """z - z_hat, [batch, d_model]"""
    values: Tensor
    """Codes of the pairs, [n_pairs]."""


def reconstruction(
    weights: Weights,
    centred: Tensor,
    pre: Tensor,
    pairs: Pairs,
    ends: Tensor,
    revive: Callable[[Tensor], Revival | None],
) -> Reconstruction:
    """Return the loss of a batch, whose gradients reach the weights.

    Args:
        weights: Encoder and decoder.
        centred: z - b_dec without a graph, [batch, d_model].
        pre: centred W_enc + b_enc without a graph, [batch, d_sae].
        pairs: The active pairs; with several prefixes, the features of each row ascending.
        ends: Ends of the prefixes of the features, int64 [n_prefixes].
        revive: Says which dead features are to be brought back, given the codes of the pairs, [n_pairs].
    """
    return Reconstruction(*_Reconstruction.apply(*weights, centred, pre, pairs, ends, revive))  # type: ignore[misc]


class _Reconstruction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
        W_rows, _, W_dec, _, centred, pre, pairs, ends, revive = args
        values, errors, squares = reconstruct(pre, centred, W_dec, pairs, ends)
        loss = squares / errors.numel()
        revival = revive(values)
        ctx.auxiliary = None if revival is None else _auxiliary(revival, pre, errors[-1], W_dec)
        if ctx.auxiliary is not None:
            loss = loss + ctx.auxiliary.loss
        ctx.pairs = pairs
        ctx.set_materialize_grads(False)  # zeros for the outputs that have no gradient
        ctx.save_for_backward(W_rows, W_dec, centred, values, errors, ends)
        error = errors[-1]
        ctx.mark_non_differentiable(error, values)
        return loss, error, values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if grad_outputs[0] is None:  # nothing depends on the loss
            return (None,) * len(ctx.needs_input_grad)
        W_rows, W_dec, centred, values, errors, ends = ctx.saved_tensors
        by_loss = float(grad_outputs[0])
        factor = -2 * by_loss / errors.numel()
        sums = errors if len(ends) == 1 else errors.flip(0).cumsum(0).flip(0)  # a feature is in all later prefixes
        found = Weights(*gradients(sums, factor, values, centred, W_rows, W_dec, ctx.pairs, ends))
        if ctx.auxiliary is not None:
            _add_auxiliary(ctx.auxiliary, by_loss, centred, W_rows, W_dec, found)
        return *found, None, None, None, None, None


class _Auxiliary(NamedTuple):
    dead: Tensor
    codes: Tensor
    """[batch, n_dead]"""
    missed: Tensor
    """e - e_hat, [batch, d_model]"""
    coefficient: float

    @property
    def loss(self) -> Tensor:
        return self.coefficient * self.missed.square().mean()


def _auxiliary(revival: Revival, pre: Tensor, error: Tensor, W_dec: Tensor) -> _Auxiliary:
    among = pre.index_select(1, revival.dead).to(W_dec)
    columns = largest(among, min(revival.aux_k, len(revival.dead)))
    codes = torch.zeros_like(among).scatter_(1, columns, among.gather(1, columns).relu_())
    return _Auxiliary(revival.dead, codes, error - codes @ W_dec[revival.dead], revival.coefficient)


def _add_auxiliary(
    auxiliary: _Auxiliary,
    by_loss: float,
    centred: Tensor,
    W_rows: Tensor,
    W_dec: Tensor,
    found: Weights,
) -> None:
    """Add the gradients of the dead features to those of all."""
    dead, codes, missed, coefficient = auxiliary
    grad = missed * (-2 * by_loss * coefficient / missed.numel())
    d_codes = (grad @ W_dec[dead].T) * (codes > 0)
    d_b_enc = d_codes.sum(0)
    found.W_dec.index_add_(0, dead, codes.T @ grad)
    found.W_enc_rows.index_add_(0, dead, d_codes.T @ centred)
    found.b_enc.index_add_(0, dead, d_b_enc)
    found.b_dec.sub_(d_b_enc @ W_rows[dead])
