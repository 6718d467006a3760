"""Autoencoders that are trained side by side, from one reading of the store: which together, under which locks.

1. Those that see the same rows, which are those of the same part of the prompts, go together, as many as fit.
2. Each has its own lock and is published by itself. Locks are taken in one order, so that processes whose groups
   overlap wait for each other and never in a circle; what another has made meanwhile is not made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import groupby

from refusal import stages
from refusal.artifacts import building, read_json
from refusal.progress import say
from refusal.sae.scope import SaeKey
from refusal.study import MANIFEST, Study

ROOM = 2_000_000_000  # bytes for weights, gradients, Adam's two moments and the rows that are held


def have(study: Study, keys: Sequence[SaeKey]) -> int:
    """Have these autoencoders; return how many had to be trained."""
    rows = read_json(study.store / MANIFEST)["n_rows"]
    return sum(_have_group(study, group) for group in groups(keys, at_once(study, rows)))


def at_once(study: Study, n_rows: int) -> int:
    """Return how many autoencoders are trained side by side on a store with ``n_rows`` rows a site."""
    from refusal.activations.source import MEMORY_BYTES

    d_model = study.shape[1]
    training = 4 * 4 * 2 * d_model * study.recipe["hidden_dim"]
    held = min(MEMORY_BYTES, 4 * d_model * n_rows)
    return study.options.sae.at_once or max(1, ROOM // (training + held))


def groups(keys: Sequence[SaeKey], size: int) -> list[list[SaeKey]]:
    """Put autoencoders of the same part, which stand next to each other, together, at most ``size`` in a group."""
    by_part = [list(same) for _, same in groupby(keys, lambda key: key.part)]
    return [same[i : i + size] for same in by_part for i in range(0, len(same), size)]


def _have_group(study: Study, keys: Sequence[SaeKey]) -> int:
    with ExitStack() as locks:
        for folder in sorted(map(study.sae, keys)):
            locks.enter_context(building(folder))
        missing = [key for key in keys if not study.has_sae(key)]  # another process may have built some meanwhile
        if missing:
            stages.train(study, missing)
            for key in missing:
                say("sae", "built", study.sae(key))
    return len(missing)
