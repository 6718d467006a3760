"""Stores of made-up rows for the benchmarks of reading, written as a collection writes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from refusal.activations.shard import ROW_COLUMNS, write_shard
from refusal.activations.store import MANIFEST, SCHEMA_VERSION, ActivationStore
from refusal.artifacts import write_json
from refusal.models.tokens import TOKEN_KINDS

SITE = "residuals_0"


class Part(NamedTuple):
    """What one shard holds."""

    category: str
    split: str
    fold: str
    lengths: np.ndarray
    """Rows of each prompt, [n_prompts]."""


Values = Callable[[int, np.ndarray], np.ndarray]
"""From the number of a shard and the prompt of each of its rows [rows], counted over all shards, to encoded rows."""


def write_store(folder: Path, parts: Sequence[Part], *, d_model: int, dtype: str, values: Values) -> ActivationStore:
    """Write a store of one site: last positions first, then the other rows, permuted."""
    folder.mkdir(parents=True, exist_ok=True)
    shards, n_before = [], 0
    for number, part in enumerate(parts):
        n_prompts = len(part.lengths)
        others = np.random.default_rng(number).permutation(np.repeat(np.arange(n_prompts), part.lengths - 1))
        prompt = np.concatenate([np.arange(n_prompts), others])
        sections = {"last": n_prompts, "instruction": len(others)}
        texts = {"category": part.category, "split": part.split, "fold": part.fold, "text": "", "response": ""}
        texts |= dict.fromkeys(("source", "variant"), "")
        numbers = dict.fromkeys(("n_tokens", "first_token", "by_phrases", "by_score", "truncated", "refused"), 0)
        index = range(n_before, n_before + n_prompts)
        write_shard(
            folder / f"shard-{number:04d}.h5",
            prompts={name: [value] * n_prompts for name, value in {**texts, **numbers, "refusal_score": 0.0}.items()}
            | {"id": [f"{i:016x}" for i in index], "index": list(index)},
            rows={**dict.fromkeys(ROW_COLUMNS, np.zeros(len(prompt))), "prompt": prompt},
            sections=sections,
            activations=[(SITE, values(number, n_before + prompt))],
            writes=None,
            failed={},
            kinds=TOKEN_KINDS,
            dtype=dtype,
        )
        entry = {"file": f"shard-{number:04d}.h5", "category": part.category, "split": part.split, "fold": part.fold}
        shards.append({**entry, "n_prompts": n_prompts, "n_rows": len(prompt), "sections": sections})
        n_before += n_prompts
    manifest = {"schema_version": SCHEMA_VERSION, "sites": [SITE], "dtype": dtype, "d_model": d_model, "n_layers": 1}
    manifest |= {"writes": False, "refusal_tokens": None, "max_prompt_tokens": None, "labels": "none"}
    manifest |= {"positions": ["last", "instruction", "template"], "response_positions": 0, "shards": shards}
    write_json(folder / MANIFEST, manifest)
    return ActivationStore(folder)


def head_of(store: ActivationStore, folder: Path, n_shards: int) -> ActivationStore:
    """Make a store of the first so many shards of another, without copying them."""
    folder.mkdir(parents=True)
    shards = store.manifest["shards"][:n_shards]
    for shard in shards:
        (folder / shard["file"]).hardlink_to(store.folder / shard["file"])
    write_json(folder / MANIFEST, {**store.manifest, "shards": shards})
    return ActivationStore(folder)
