"""Knock directions out of what the model's components write, and see what becomes of the refusal score.

A knock-out of category A projects, in every component write of the blocks from ``start`` to ``stop - 1``, the
deviation from a centre off A's direction; the centre on a prompt of category B is the mean over B's complied
prompts, so that a knock-out never moves the topic (method: causal transfer).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from refusal.comparison.contrast import Contrast
from refusal.comparison.crossfit import CrossFit, halves, quarters
from refusal.models.chat import ChatModel
from refusal.models.hooks import Edit, editing
from refusal.models.refusal_score import refusal_score
from refusal.models.sites import Site
from refusal.models.suffix import suffix_batches
from refusal.progress import track

Condition = Callable[[np.ndarray], Mapping[Site, Edit]]
"""Given which prompts a batch holds (indices, [batch]), what to change at which sites."""

WRITES = ("attention", "mlp")


class KnockOuts:
    """Runs knock-outs on the refused prompts of a contrast.

    Args:
        chat: The model.
        contrast: The study's prompts.
        tokens: Refusal tokens.
        batch_size: Prompts at a time.
    """

    def __init__(self, chat: ChatModel, contrast: Contrast, tokens: Sequence[int], *, batch_size: int = 128) -> None:
        self.chat, self.contrast, self.tokens, self.batch_size = chat, contrast, tokens, batch_size
        self.rows = contrast.rows(refused=True)
        self._cross_fit(quarters(contrast))

    def _cross_fit(self, fit: CrossFit) -> None:
        self.fit, self.centres = fit, fit.centre(self.contrast.writes)

    @property
    def category(self) -> np.ndarray:
        """Category of each refused prompt, int [n_rows]."""
        return self.contrast.category[self.rows]

    @property
    def part(self) -> np.ndarray:
        """Part of each refused prompt, int [n_rows]."""
        return self.fit.part[self.rows]

    def by_halves(self) -> KnockOuts:
        """Return the same with directions from one half for use on the other, where these come from three quarters."""
        same = copy.copy(self)
        same._cross_fit(halves(self.contrast))
        return same

    def falls(self, conditions: Sequence[Condition]) -> np.ndarray:
        """Return how far each condition lowers the score of each refused prompt, [n_conditions, n_rows], nats."""
        scores = np.zeros((1 + len(conditions), len(self.rows)))
        prompts = [self.contrast.prompts[row] for row in self.rows]
        n_batches = -(-len(prompts) // self.batch_size)
        batches = suffix_batches(self.chat, prompts, batch_size=self.batch_size)
        with torch.no_grad():
            for batch in track(batches, "knocking out", total=n_batches):
                for i, condition in enumerate((_unchanged, *conditions)):
                    with editing(self.chat.model, condition(self.rows[batch.index])):
                        scores[i, batch.index] = refusal_score(batch.logits(), self.tokens).cpu().numpy()
        return scores[0] - scores[1:]

    def divergence(self, condition: Condition) -> np.ndarray:
        """Return KL(unchanged || changed) of the next token for each complied prompt, [n_complied], nats."""
        rows = self.contrast.rows(refused=False)
        prompts = [self.contrast.prompts[row] for row in rows]
        divergence = np.zeros(len(rows))
        with torch.no_grad():
            for batch in suffix_batches(self.chat, prompts, batch_size=self.batch_size):
                clean = batch.logits().log_softmax(-1)
                with editing(self.chat.model, condition(rows[batch.index])):
                    changed = batch.logits().log_softmax(-1)
                divergence[batch.index] = (clean.exp() * (clean - changed)).sum(-1).cpu().numpy()
        return divergence

    def off(
        self,
        directions: np.ndarray,
        start: int,
        stop: int,
        *,
        knocked: int | None = None,
        freeze_rest: bool = False,
        together: bool = False,
    ) -> Condition:
        """Return the condition that projects a category's directions off the writes of blocks start .. stop - 1.

        Args:
            directions: Unit vectors, or zeros where there is none, for use on each part's prompts,
                [n_parts, n_categories, n_layers, 2, d_model].
            start: First block.
            stop: Block after the last.
            knocked: The category whose directions are used; None: each prompt's own.
            freeze_rest: Whether the blocks from ``stop`` on write what they wrote without the knock-out.
            together: Whether a direction is projected off all that has been written since ``start``, rather than off
                what is being written alone.
        """

        def condition(rows: np.ndarray) -> Mapping[Site, Edit]:
            part, category = self.fit.part[rows], self.contrast.category[rows]
            knock_out = _KnockOut(together=together)
            edits: dict[Site, Edit] = {}
            for layer, component in np.ndindex(self.contrast.n_layers, len(WRITES)):
                site = Site(WRITES[component], layer)
                if start <= layer < stop:
                    w = directions[part, category if knocked is None else knocked, layer, component]
                    centre = self.centres[part, category, layer, component]
                    if together or w.any():
                        edits[site] = knock_out.edit(self._tensor(w), self._tensor(centre), first=not edits)
                elif freeze_rest and layer >= stop:
                    edits[site] = _replace_last(self._tensor(self.contrast.writes[rows, layer, component]))
            return edits

        return condition

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).to(self.chat.device)


def _unchanged(_rows: np.ndarray) -> Mapping[Site, Edit]:
    return {}


class _KnockOut:
    """Projects the deviations of one pass's writes from their centres off directions, at the last position."""

    def __init__(self, *, together: bool) -> None:
        self.together = together
        self.left: Tensor | float = 0.0
        """What is left of the deviation of all that has been written, [batch, d_model]; 0 unless taken together."""

    def edit(self, w: Tensor, centre: Tensor, *, first: bool) -> Edit:
        """Return the edit of one write x; w (unit) and centre are [batch, d_model], ``first`` starts a pass."""

        def edit(x: Tensor) -> Tensor:
            deviation = x[:, -1] - centre.to(x.dtype) + (0.0 if first else self.left)
            off = (deviation * w.to(x.dtype)).sum(-1, keepdim=True) * w.to(x.dtype)
            if self.together:
                self.left = deviation - off
            return torch.cat([x[:, :-1], (x[:, -1] - off)[:, None]], dim=1)

        return edit


def _replace_last(value: Tensor) -> Edit:
    """Return the edit that puts a value [batch, d_model] at the last position."""

    def edit(x: Tensor) -> Tensor:
        return torch.cat([x[:, :-1], value.to(x.dtype)[:, None]], dim=1)

    return edit
