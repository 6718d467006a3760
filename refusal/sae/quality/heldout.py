"""An autoencoder on the rows of held-out prompts: all of them, the last prompt positions, each split, each category.

One pass over the rows: the figures are summed for each stratum, its last positions and its other rows apart, and
the sums are added up. ``{"all": ..., "last": ..., "splits": {name: {"all": ..., "last": ...}}, "categories": ...}``,
each with the figures of ``metrics``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch

from refusal.activations.datamodule import HELDOUT
from refusal.activations.shard import CHUNK_ROWS, Shard
from refusal.activations.store import ActivationStore
from refusal.models.sites import Site
from refusal.sae.base import SparseAutoencoder
from refusal.sae.quality.metrics import Quality

MOST_CHUNKS = 128  # of 1,024 rows, about; beyond it each stratum gives its share, and at least its first


@torch.no_grad()
def measure(
    sae: SparseAutoencoder, store: ActivationStore, site: Site | str, sections: Collection[str]
) -> dict[str, Any]:
    """Return an autoencoder's figures on the held-out rows of these sections of a site, as JSON holds them."""
    origin = sae.decode(torch.zeros(sae.d_sae, device=sae.W_dec.device)).detach()  # near the rows' mean
    cells: dict[tuple[str, str, bool], Quality] = defaultdict(lambda: Quality(origin, sae.d_sae))
    for shard, chunk, rows in _chosen(store, sections):
        x = torch.from_numpy(store.read_chunk(shard, chunk, site)[rows]).to(origin)
        values, indices = sae.sparse_codes(x)
        x_hat = sae.decode_sparse(values, indices)
        n_last = int((rows + chunk * CHUNK_ROWS < shard.n_prompts).sum())
        for is_last, part in ((True, slice(n_last)), (False, slice(n_last, None))):
            cells[shard.split, shard.category, is_last].add(x[part], x_hat[part], values[part], indices[part])

    def figures(split: str | None = None, category: str | None = None) -> dict[str, Any]:
        sums = {name: Quality(origin, sae.d_sae) for name in ("all", "last")}
        for (own_split, own_category, is_last), cell in cells.items():
            if split in (None, own_split) and category in (None, own_category):
                sums["all"].merge(cell)
                if is_last:
                    sums["last"].merge(cell)
        return {name: quality.result() for name, quality in sums.items()}

    return {
        **figures(),
        "splits": {split: figures(split=split) for split in sorted({key[0] for key in cells})},
        "categories": {category: figures(category=category) for category in sorted({key[1] for key in cells})},
    }


def _chosen(store: ActivationStore, sections: Collection[str]) -> Iterator[tuple[Shard, int, np.ndarray]]:
    """Yield chunks of held-out rows, evenly from each stratum: the shard, the chunk, the rows wanted of it."""
    strata: dict[tuple[str, str], list[tuple[Shard, int, np.ndarray]]] = defaultdict(list)
    for shard in store.shards:
        if shard.fold in HELDOUT:
            rows = np.concatenate([np.arange(*run) for run in shard.runs(sections)])
            wanted = [rows[rows // CHUNK_ROWS == i] - i * CHUNK_ROWS for i in range(shard.n_chunks)]
            strata[shard.split, shard.category] += [(shard, i, own) for i, own in enumerate(wanted) if len(own)]
    every = max(1, sum(map(len, strata.values())) // MOST_CHUNKS)
    for chunks in strata.values():
        yield from chunks[::every]
