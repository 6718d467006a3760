"""Keeps what is wanted of each site while a model runs, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refusal import InputError
from refusal.activations.recipe import Recipe
from refusal.models.chat import Batch, ChatModel
from refusal.models.hooks import editing
from refusal.models.realign import full_cache
from refusal.models.sites import Site


class _Enough(Exception):
    """All that is wanted has been read."""


class Reader:
    """Reads one batch of prompts as a recipe says.

    Args:
        chat: The model.
        recipe: What is wanted.
        ids: The prompts' ids, for messages.
    """

    def __init__(self, chat: ChatModel, recipe: Recipe, ids: Sequence[str]) -> None:
        self._chat, self._ids = chat, ids
        self._sites = set(recipe.sites)
        self._components = components(chat.n_layers) if recipe.writes else []
        self._wanted = sorted({*recipe.sites, *self._components})
        self._stops = not (recipe.has_scores or recipe.has_responses)

    def prefill(self, batch: Batch, index: Tensor, rows: dict[Site, Tensor], last: dict[Site, Tensor]) -> Any:
        """Run the prompts; return the model's output, or None if its last layers were not needed.

        Args:
            batch: The padded prompts.
            index: Which tokens of the flattened batch become rows.
            rows: Filled with each site's [n_rows, d_model].
            last: Filled with each component's write at the last position, [batch, d_model].
        """
        at = torch.arange(len(batch.last), device=batch.last.device)

        def read(site: Site, x: Tensor) -> None:
            if site in self._sites:
                rows[site] = x.reshape(-1, x.shape[-1])[index.to(x.device)]
            if site in self._components:
                last[site] = x[at.to(x.device), batch.last.to(x.device)]
            if self._stops and site == self._wanted[-1]:
                raise _Enough

        with suppress(_Enough), self._reading(self._wanted, read):
            cache = full_cache() if self._chat.padding_side == "right" and not self._stops else None
            return self._chat.model(
                **batch.inputs(),
                past_key_values=cache,
                use_cache=not self._stops,
                logits_to_keep=batch.last_columns,
            )
        return None

    def step(self, rows: dict[Site, Tensor]) -> AbstractContextManager[None]:
        """Return a context in which a pass over one token of each prompt fills ``rows`` with [batch, d_model]."""

        def read(site: Site, x: Tensor) -> None:
            rows[site] = x[:, -1]

        return self._reading(sorted(self._sites), read)

    def check_finite(self, values: Mapping[Site, Tensor], owners: np.ndarray) -> None:
        """Raise an ``InputError`` unless all is finite; row i of the values belongs to prompt ``owners[i]``."""
        ranges = [torch.aminmax(x) for x in values.values() if x.numel()]
        # NaN and infinity go through the difference; if only that overflows, nothing is found below
        flags = [(highest - lowest).isfinite() for lowest, highest in ranges]
        if not flags or bool(torch.stack([flag.to(flags[0].device) for flag in flags]).all()):
            return
        for site, x in values.items():
            bad = (~x.isfinite().all(-1)).nonzero()
            if len(bad):
                raise InputError(
                    f"activations at {site} are not finite for prompt {self._ids[owners[int(bad[0])]]}; "
                    "the model overflows in this type: try model.dtype=float32"
                )

    def _reading(self, sites: Sequence[Site], read: Callable[[Site, Tensor], None]) -> AbstractContextManager[None]:
        def edit(site: Site) -> Callable[[Tensor], Tensor]:
            def keep(x: Tensor) -> Tensor:
                read(site, x)
                return x

            return keep

        return editing(self._chat.model, {site: edit(site) for site in sites})


def components(n_layers: int) -> list[Site]:
    """Return the sites of all component writes, in the order of computation."""
    return [Site(kind, layer) for layer in range(n_layers) for kind in ("attention", "mlp")]
