"""Backward passes that fit: through a large model, what a block computes is computed again instead of being kept.

What transformers has for that (``gradient_checkpointing_enable``) works in training only, and takes away the cache of
keys and values from which the ends of prompts go on. Here each block has a copy of the cache to itself, so that running
it again finds the cache as it was.

Source: Chen et al. 2016, arXiv 1604.06174.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.cache_utils import Cache

from refusal.models.architectures import find
from refusal.models.suffix import copied

LARGE = 1_000_000_000
"""Weights of a model whose blocks run again in backward passes: a third more time, a block's activations at once."""


@contextmanager
def differentiating(model: nn.Module) -> Iterator[None]:
    """Within the block, passes have gradients; backward passes belong inside it, too, under the same hooks."""
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        if sum(weight.numel() for weight in model.parameters()) >= LARGE:
            stack.enter_context(recomputing(model))
        yield


@contextmanager
def recomputing(model: nn.Module) -> Iterator[None]:
    """Within the block, passes with gradients keep only what goes into each block of the model.

    Hooks inside a block are called again in the backward pass: whoever remembers what they saw keeps the first.
    """
    _, blocks = find(model)
    with ExitStack() as stack:
        for block in blocks:
            restore = partial(setattr, block, "forward", block.forward)
            if "forward" not in vars(block):  # as accelerate puts it there
                restore = partial(delattr, block, "forward")
            block.forward = partial(_recomputed, block.forward)
            stack.callback(restore)
        yield


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        return forward(*map(_own, args), **{name: _own(value) for name, value in kwargs.items()})

    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def _own(value: Any) -> Any:
    return copied(value) if isinstance(value, Cache) else value
