"""How well batches are mixed: distinct prompts in a batch of 1,024 rows, against those of a true shuffle.

    python benchmarks/shuffle.py [--batches 100] [--json FILE] [--fast]

Rows of one prompt lie in one shard, and a stream that reads from disk has only some places of a stratum open at a
time: where it had too few, a batch would see fewer prompts. The stores have a stratum of many shards and one of few,
with prompts of 30, 120 and 500 rows on average (log-normal). The stream reads them from memory; from disk as it
would rows of d_model 4,096 in bfloat16 (pieces of 1,024 rows); and from disk in pieces of a few rows. The true shuffle
draws as many rows from each pool without replacement, from a permutation of all its rows.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.synthetic import SITE, Part, write_store
from refusal.activations.samplers import Sampler, uniform, weighted
from refusal.activations.source import MEMORY_BYTES
from refusal.activations.store import ActivationStore
from refusal.activations.stream import RowStream

BATCH, LAST_FRACTION = 1024, 0.25
D_MODEL, ROW_BYTES = 4, 16  # of these stores
LARGE_ROW_BYTES = 4096 * 2
SHARD_ROWS = 65_536
MEAN_LENGTHS = (30, 120, 500)
SAMPLERS: dict[str, Sampler] = {"uniform": uniform.weights, "weighted": weighted.weights}
SOURCES = {  # bytes of rows held
    "memory": 1 << 40,
    "disk": MEMORY_BYTES * ROW_BYTES // LARGE_ROW_BYTES,
    "disk, small pieces": 4 * 16 * ROW_BYTES * 8,
}
TARGET = 0.05


def main() -> int:
    """Run the command; return its exit status: 1 if a batch is mixed too badly."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batches", type=int, default=100, help="batches that are counted (100)")
    parser.add_argument("--json", type=Path, default=Path("shuffle.json"), help="where to write (shuffle.json)")
    parser.add_argument("--fast", action="store_true", help="fewer shards, to see that it runs")
    options = parser.parse_args()
    n_shards = {"safe": 6, "toxic": 1} if options.fast else {"safe": 28, "toxic": 3}
    results = []
    print(f"{'rows a prompt':<15}{'sampler':<10}{'source':<20}{'prompts':>9}{'true':>9}{'off by':>9}")
    for mean_length in MEAN_LENGTHS:
        with tempfile.TemporaryDirectory() as folder:
            parts = make_parts(mean_length, n_shards)
            store = write_store(Path(folder), parts, d_model=D_MODEL, dtype="float32", values=number_of_prompt)
            for result in compare(store, parts, options.batches):
                results.append({"mean_length": mean_length, **result})
                print(
                    f"{mean_length:<15}{result['sampler']:<10}{result['source']:<20}{result['distinct']:9.1f}"
                    f"{result['true']:9.1f}{result['off_by']:9.2%}",
                    flush=True,
                )
    worst = max(abs(result["off_by"]) for result in results)
    print(f"worst {worst:.2%}, target at most {TARGET:.0%}")
    versions = {"numpy": np.__version__, "python": platform.python_version()}
    content = {**versions, "batch": BATCH, "batches": options.batches, "shards": n_shards, "results": results}
    options.json.write_text(json.dumps(content, indent=1) + "\n")
    return int(worst > TARGET)


def make_parts(mean_length: int, n_shards: dict[str, int]) -> list[Part]:
    """Return shards of about 65,536 rows, with prompts whose lengths are log-normal."""
    rng = np.random.default_rng(mean_length)
    parts = []
    for split, count in n_shards.items():
        for _ in range(count):
            lengths = 2 + rng.lognormal(np.log(mean_length) - 0.6**2 / 2, 0.6, size=SHARD_ROWS // mean_length).astype(
                np.int64
            )
            parts.append(Part("hate", split, "train", lengths))
    return parts


def number_of_prompt(_shard: int, prompt: np.ndarray) -> np.ndarray:
    """Return rows that say which prompt they are of."""
    return np.repeat(prompt[:, None], D_MODEL, axis=1).astype(np.float32)


def compare(store: ActivationStore, parts: list[Part], n_batches: int) -> Iterator[dict[str, Any]]:
    """Count distinct prompts for every sampler and source."""
    for name, sampler in SAMPLERS.items():
        true = np.mean([len(np.unique(batch)) for batch in true_shuffle(store, parts, sampler, n_batches)])
        for source, memory_bytes in SOURCES.items():
            rows = RowStream(store, SITE, sampler, batch_size=BATCH, memory_bytes=memory_bytes)
            distinct = np.mean([len(np.unique(next(rows)[:, 0].numpy())) for _ in range(n_batches)])
            rows.close()
            yield {
                "sampler": name,
                "source": source,
                "distinct": float(distinct),
                "true": float(true),
                "off_by": float(distinct / true - 1),
            }


def true_shuffle(store: ActivationStore, parts: list[Part], sampler: Sampler, n_batches: int) -> Iterator[np.ndarray]:
    """Yield the prompts of the rows of batches that are drawn from permutations of whole pools."""
    rng = np.random.default_rng(0)
    strata = store.strata(("train",))
    pools, weights = [], []
    first = np.cumsum([0, *(len(part.lengths) for part in parts)])
    for stratum, weight in zip(strata, sampler(strata), strict=True):
        own = [i for i, part in enumerate(parts) if part.split == stratum.split]
        prompts = [first[i] + np.arange(len(parts[i].lengths)) for i in own]
        others = [np.repeat(prompt, parts[i].lengths - 1) for i, prompt in zip(own, prompts, strict=True)]
        pools += [np.concatenate(prompts), np.concatenate(others)]
        weights += [weight * LAST_FRACTION, weight * (1 - LAST_FRACTION)]
    pools = [rng.permutation(pool) for pool in pools]
    drawn = np.zeros(len(pools), dtype=np.int64)
    for _ in range(n_batches):
        counts = rng.multinomial(BATCH, weights)
        yield np.concatenate(
            [
                pool.take(np.arange(n, n + count), mode="wrap")
                for pool, n, count in zip(pools, drawn, counts, strict=True)
            ]
        )
        drawn += counts


if __name__ == "__main__":
    sys.exit(main())
