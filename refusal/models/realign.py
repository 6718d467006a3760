"""Let responses follow on prompts that were padded on the right: move the padding, in mask and cache, to the left.

Left where it is, it would stand between a prompt and its response. The mask hides it, but a sliding window counts
columns, not positions: it would reach less far back than the window of the prompt alone.
"""

from __future__ import annotations

from typing import Any

import torch

from refusal.models.chat import Batch


def full_cache() -> Any:
    """Return an empty cache that keeps all columns; the model's own lets go of those before a sliding window."""
    from transformers import DynamicCache

    return DynamicCache()


def padded_left(batch: Batch, cache: Any) -> Batch:
    """Return the batch as if it had been padded on the left, and change the cache that its pass has filled likewise.

    Args:
        batch: Prompts, padded on either side; on the left, nothing is done.
        cache: A ``full_cache`` that the prompts' pass has filled; keys and values [batch, heads, seq, d_head].
    """
    width = batch.input_ids.shape[1]
    shift = width - 1 - batch.last
    if not bool(shift.any()):
        return batch
    source = (torch.arange(width, device=shift.device) - shift[:, None]) % width  # [batch, seq]
    for layer in cache.layers:
        columns = source[:, None, :, None].to(layer.keys.device)
        layer.keys = layer.keys.take_along_dim(columns, 2)
        layer.values = layer.values.take_along_dim(columns, 2)
    return Batch(
        input_ids=batch.input_ids.gather(1, source),
        attention_mask=batch.attention_mask.gather(1, source),
        position_ids=batch.position_ids.gather(1, source),
        last=torch.full_like(batch.last, width - 1),
    )
