"""What a collection will do: which rows it keeps, which prompts share a shard, and what that takes on disk.

A shard holds one stratum (category and split) of one fold, 65,536 rows or more where there are so many. Prompts
are put into shards in a seeded random order. Shards are filled in waves of at least 512 prompts, so that
batches stay full where strata are small; a collection that is killed loses the wave in progress.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refusal import InputError
from refusal.activations.encoding import DTYPES
from refusal.artifacts import clean_name
from refusal.prompts.prompt import FOLDS, SPLITS, Prompt

SHARD_ROWS = 65_536
WAVE_PROMPTS = 512
FREE_SHARE = 0.95  # of the free disk that a collection may fill
CALIBRATION = FOLDS[0]


@dataclass(frozen=True)
class ShardPlan:
    """The prompts of one shard, as places in the study."""

    file: str
    category: str
    split: str
    fold: str
    prompts: tuple[int, ...]


def sample_rows(
    candidates: Sequence[np.ndarray], always: Sequence[Sequence[int]], max_rows: int, seed: int
) -> list[np.ndarray]:
    """Return which positions of each prompt become rows: all of them, or a seeded sample of at most ``max_rows``.

    Args:
        candidates: Positions that may become rows, for each prompt, ascending.
        always: Those of each prompt's candidates that are kept in any case.
        max_rows: Greatest sum of rows.
        seed: What the sample follows from.

    Raises:
        InputError: Those that are always kept are more than that.
    """
    total, needed = sum(map(len, candidates)), sum(map(len, always))
    if total <= max_rows:
        return list(candidates)
    if max_rows < needed:
        raise InputError(
            f"collect.max_rows={max_rows} is less than the {needed} rows that the {len(candidates)} prompts need at "
            "least; raise it, or lower data.max_per_category"
        )
    share = (max_rows - needed) / (total - needed)
    rng = np.random.default_rng([seed, 3])
    kept = []
    for positions, fixed in zip(candidates, always, strict=True):
        others = rng.permutation(np.setdiff1d(positions, fixed))
        kept.append(np.union1d(others[: int(share * len(others))], fixed).astype(np.int64))
    return kept


def plan_shards(prompts: Sequence[Prompt], n_rows: Sequence[int], seed: int) -> list[ShardPlan]:
    """Put the prompts, which give so many rows each, into shards; calibration comes first."""
    folds = sorted({prompt.fold for prompt in prompts}, key=lambda fold: (_place(FOLDS, fold), fold))
    strata: dict[tuple[str, str, str], list[int]] = {}
    for i, prompt in enumerate(prompts):
        strata.setdefault((prompt.fold, prompt.split, prompt.category), []).append(i)
    order = sorted(strata, key=lambda key: (folds.index(key[0]), _place(SPLITS, key[1]), key[1:]))
    shards = []
    for number, (fold, split, category) in enumerate(order):
        members = np.random.default_rng([seed, 4, number]).permutation(strata[fold, split, category])
        for part in _even(members, np.asarray(n_rows)[members]):
            name = clean_name(f"{fold}-{split}-{category}")
            shards.append(ShardPlan(f"shard-{len(shards):04d}-{name}.h5", category, split, fold, tuple(part.tolist())))
    return shards


def _place(known: Sequence[str], name: str) -> int:
    return known.index(name) if name in known else len(known)


def _even(members: np.ndarray, n_rows: np.ndarray) -> list[np.ndarray]:
    """Cut a stratum's prompts into parts of about equal rows, as many as have a whole shard's rows each."""
    n_parts = max(1, int(n_rows.sum()) // SHARD_ROWS)
    part_of = (np.cumsum(n_rows) - 1) * n_parts // max(1, int(n_rows.sum()))
    return [members[part_of == part] for part in range(n_parts)]


def waves(shards: Sequence[ShardPlan]) -> Iterator[list[ShardPlan]]:
    """Yield the shards in runs of at least 512 prompts (the last run of a phase may have fewer)."""
    wave: list[ShardPlan] = []
    for shard in shards:
        wave.append(shard)
        if sum(len(member.prompts) for member in wave) >= WAVE_PROMPTS:
            yield wave
            wave = []
    if wave:
        yield wave


def batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Pack prompts of these numbers of tokens into batches, the longest first, within a budget of padded tokens."""
    packed: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if not packed or lengths[packed[-1][0]] * (len(packed[-1]) + 1) > token_budget:
            packed.append([])
        packed[-1].append(i)
    return packed


def bytes_needed(
    n_rows: int, n_prompts: int, *, n_sites: int, n_layers: int, d_model: int, dtype: str, writes: bool
) -> int:
    """Estimate what a store takes on disk."""
    numbers = n_rows * n_sites * d_model + n_prompts * n_layers * 2 * d_model * writes
    return numbers * DTYPES[dtype].itemsize + n_rows * 14 + n_prompts * 1024


def check_disk(folder: Path, needed: int) -> None:
    """Raise an ``InputError`` unless so many bytes fit the free disk."""
    free = shutil.disk_usage(folder).free
    if needed > free * FREE_SHARE:
        raise InputError(
            f"the activations need {_size(needed)} and {folder} has {_size(free)} free; "
            "lower collect.max_rows, choose fewer layers, or store bfloat16"
        )


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
