"""What it costs to feed a training from disk: against the same training fed from memory, and in memory.

    python benchmarks/feeding.py [--turns 30] [--folder DIR] [--json FILE] [--fast]

1. Time: ``train_saes`` with TopK on a store of d_model 4,096 in bfloat16, once with its rows in memory and once reading
   them from disk, each in a process of its own. They take turns of ten steps, the other one being stopped (SIGSTOP)
   meanwhile, so that whatever else the machine does falls on both alike. The claim is the ratio of the sums, in
   which every stall counts; the median of the turns' ratios is printed beside it. The one that reads from disk lives
   in a memory cgroup (version 1, which takes root) whose limit leaves it a page cache of less than a third of the
   store; what the cache really held is read from the cgroup after every step. The store's pages are dropped before
   the first turn. Where no cgroup can be made they are dropped after every step instead.
2. Memory: the peak of the resident memory of such a training on stores of 1, 2, 4 and 6 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.synthetic import SITE, Part, head_of, write_store  # noqa: E402
from refusal.activations.store import ActivationStore  # noqa: E402

THREADS = 2
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS)}
CGROUPS = Path("/sys/fs/cgroup/memory")
TARGET, FLAT_SHARE, FLAT_MB = 1.05, 0.10, 200
WARM_UP, TURN = 5, 10  # steps that are not counted; steps of a turn

TURN_ENDS = "a turn ends\n"

Run = subprocess.Popen[str]


class Shape(NamedTuple):
    """Sizes of a run."""

    d_model: int
    d_sae: int
    k: int
    batch: int
    shard_rows: int
    timed_shards: int
    """Of the store on which time is measured."""
    sizes: tuple[int, ...]
    """Shards of the stores on which memory is measured."""
    memory_steps: int
    """Of the trainings whose memory is measured."""
    memory_bytes: int
    """Rows held by the training that reads from disk."""
    limit_mb: int | None
    """Of its cgroup: what it holds itself, and the page cache."""


FULL = Shape(4096, 8192, 64, 512, 32_768, 12, (4, 8, 16, 24), 60, 1 << 30, 3700)  # "llama" of the step's benchmark
FAST = Shape(128, 256, 8, 256, 4096, 4, (2, 4), 20, 1 << 18, None)


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=30, help="turns of ten steps that each training takes (30)")
    parser.add_argument("--folder", type=Path, help="where the stores go for a while (a temporary folder)")
    parser.add_argument("--json", type=Path, default=Path("feeding.json"), help="where to write (feeding.json)")
    parser.add_argument("--fast", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--one", choices=("disk", "memory"), help=argparse.SUPPRESS)  # what processes are called with
    parser.add_argument("--cgroup", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    shape = FAST if options.fast else FULL
    if options.one:
        print(json.dumps(train_once(options.folder, options.one, options.turns, shape, options.cgroup)))
        return 0
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        result = measure(folder, shape, options.turns)
    finally:
        shutil.rmtree(folder)
    show(result)
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def measure(folder: Path, shape: Shape, n_turns: int) -> dict[str, Any]:
    """Write the stores, and measure time and memory."""
    import torch

    whole = write_rows(folder / "whole", shape)
    turns, ends = race(head_of(whole, folder / "timed", 1 + shape.timed_shards), n_turns, shape)
    peaks = {}
    for n_shards in shape.sizes:
        store = head_of(whole, folder / f"{n_shards}", 1 + n_shards)
        peaks[n_shards * shard_mb(shape)] = end(start(store, "disk", 0, shape, None))["peak_mb"]
    versions = {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()}
    return {
        "ratio": sum(turns["disk"]) / sum(turns["memory"]),
        "median_ratio": statistics.median(d / m for d, m in zip(turns["disk"], turns["memory"], strict=True)),
        "step_ms": {name: 1e3 * sum(seconds) / n_turns / TURN for name, seconds in turns.items()},
        "store_mb": shape.timed_shards * shard_mb(shape),
        "cache_mb": ends["disk"]["cache_mb"],
        "page_cache": "limited by a cgroup" if can_limit(shape) else "dropped after every step",
        "peak_mb": peaks,
        "turns": turns,
        "shape": shape._asdict(),
        **versions,
        "threads": THREADS,
        "load": os.getloadavg(),
    }


def race(store: ActivationStore, n_turns: int, shape: Shape) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Return the seconds of each turn of both trainings, and what they say at their end."""
    drop_pages(store.folder)
    with limited(shape) as cgroup:
        runs: dict[str, Run] = {}
        for name in ("disk", "memory"):
            runs[name] = start(store, name, n_turns, shape, cgroup if name == "disk" else None)
            stop_after_turn(runs[name])  # its warm-up
        drop_pages(store.folder)
        turns: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(n_turns):
            for name in sorted(runs, reverse=bool(turn % 2)):
                began = time.perf_counter()
                go_on(runs[name])
                stop_after_turn(runs[name])
                turns[name].append(time.perf_counter() - began)
        for run in runs.values():
            go_on(run)
        return turns, {name: end(run) for name, run in runs.items()}


def show(result: dict[str, Any]) -> None:
    """Print what came out."""
    cache = f"page cache {result['page_cache']}: at most {result['cache_mb']:,.0f} MB"
    print(f"store {result['store_mb']:,.0f} MB, {cache}")
    for name, milliseconds in result["step_ms"].items():
        print(f"fed from {name:<8}{milliseconds:8.1f} ms a step")
    print(f"ratio {result['ratio']:.3f} (median of turns {result['median_ratio']:.3f}), target at most {TARGET}")
    for size, peak in result["peak_mb"].items():
        print(f"store of {size:8,.0f} MB: peak {peak:8,.0f} MB")
    low, high = min(result["peak_mb"].values()), max(result["peak_mb"].values())
    print(f"peak grows by {high - low:.0f} MB ({high / low - 1:.1%}), target {FLAT_SHARE:.0%} or {FLAT_MB} MB at most")


def write_rows(folder: Path, shape: Shape) -> ActivationStore:
    """Write the largest store: a small held-out shard, then shards of harmless and harmful prompts in turn."""
    base = np.random.default_rng(0).standard_normal((4096, shape.d_model), dtype=np.float32)
    stored = (base.view(np.uint32) >> 16).astype(np.uint16)

    def values(number: int, prompt: np.ndarray) -> np.ndarray:
        return stored[np.random.default_rng(number).integers(len(stored), size=len(prompt))]

    per_prompt = 32
    parts = [Part("hate", "safe", "heldout", np.full(32, per_prompt))]
    for i in range(max(shape.timed_shards, *shape.sizes)):
        n_prompts = shape.shard_rows // per_prompt
        parts.append(Part("hate", ("safe", "toxic")[i % 2], "train", np.full(n_prompts, per_prompt)))
    return write_store(folder, parts, d_model=shape.d_model, dtype="bfloat16", values=values)


def shard_mb(shape: Shape) -> float:
    """Return the size of a shard's rows."""
    return shape.shard_rows * shape.d_model * 2 / 1e6


def can_limit(shape: Shape) -> bool:
    """Whether the page cache is limited by a memory cgroup (version 1), which takes root."""
    return shape.limit_mb is not None and os.access(CGROUPS / "cgroup.procs", os.W_OK)


@contextmanager
def limited(shape: Shape) -> Iterator[Path | None]:
    """Make a cgroup for a process to enter, where one can be made."""
    if not can_limit(shape):
        yield None
        return
    cgroup = CGROUPS / f"feeding-{os.getpid()}"
    cgroup.mkdir()
    try:
        (cgroup / "memory.limit_in_bytes").write_text(str((shape.limit_mb or 0) * 1_000_000))
        yield cgroup
    finally:
        cgroup.rmdir()


def start(store: ActivationStore, name: str, n_turns: int, shape: Shape, cgroup: Path | None) -> Run:
    """Start a training, which waits after its warm-up and after each turn; without turns it runs through."""
    command = [sys.executable, __file__, "--one", name, "--folder", str(store.folder), "--turns", str(n_turns)]
    command += ["--fast"] * (shape == FAST) + (["--cgroup", str(cgroup)] if cgroup else [])
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def stop_after_turn(run: Run) -> None:
    """Wait for the end of a turn, and stop the whole process, with its thread that reads."""
    assert run.stdout is not None
    if run.stdout.readline() != TURN_ENDS:
        raise SystemExit(f"a training ended with {run.wait()}")
    run.send_signal(signal.SIGSTOP)


def go_on(run: Run) -> None:
    """Let a stopped process begin its next turn."""
    assert run.stdin is not None
    run.send_signal(signal.SIGCONT)
    run.stdin.write("\n")
    run.stdin.flush()


def end(run: Run) -> dict[str, float]:
    """Let a process finish, and return what it prints last."""
    said, _ = run.communicate()
    if run.returncode:
        raise SystemExit(f"a training ended with {run.returncode}")
    return json.loads(said.splitlines()[-1])


def train_once(folder: Path, name: str, n_turns: int, shape: Shape, cgroup: Path | None) -> dict[str, float]:
    """Train with the real ``train_saes``; only where its rows are held is set from here.

    Returns the peaks of memory and of the page cache, in MB.
    """
    if cgroup is not None:
        (cgroup / "cgroup.procs").write_text(str(os.getpid()))
    import pytorch_lightning as pl
    import torch

    from refusal.activations.datamodule import ActivationDataModule
    from refusal.activations.samplers import uniform
    from refusal.sae.recipe import Recipe
    from refusal.sae.training import train

    torch.set_num_threads(THREADS)
    caches = [0.0]

    class Turns(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            done = batch_idx + 1 - WARM_UP
            if cgroup is not None:
                caches.append(cache_mb(cgroup))
            elif name == "disk" and n_turns:
                drop_pages(folder)
            if n_turns and done >= 0 and done % TURN == 0:
                print(TURN_ENDS, end="", flush=True)
                sys.stdin.readline()

    held = shape.memory_bytes if name == "disk" else 1 << 50
    train.ActivationDataModule = partial(ActivationDataModule, memory_bytes=held)  # type: ignore[misc]
    steps = WARM_UP + n_turns * TURN if n_turns else shape.memory_steps
    recipe = Recipe(
        target="refusal.sae.architectures.topk.TopK",
        hidden_dim=shape.d_sae,
        lr=1e-4,
        batch_size=shape.batch,
        epochs=1e9,
        max_rows=steps * shape.batch,
        seed=0,
        lr_warmup=0.0,
        lr_decay=0.0,
        dead_after_rows=1 << 60,
        options={"k": shape.k},
    )
    with tempfile.TemporaryDirectory() as out:
        train.train_saes(
            ActivationStore(folder),
            [train.Job(SITE, 0, Path(out), SITE)],
            recipe,
            model="synthetic",
            sampler=uniform.weights,
            order_seed=0,
            last_fraction=0.05,
            kinds=["instruction"],
            trainer={"accelerator": "cpu", "devices": "1", "precision": "32-true", "callbacks": [Turns()]},
            checkpoints=Path(out),
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return {"peak_mb": peak, "cache_mb": max(caches)}


def cache_mb(cgroup: Path) -> float:
    """Return the size of a cgroup's page cache."""
    lines = (cgroup / "memory.stat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("cache ")) / 1e6


def drop_pages(folder: Path) -> None:
    """Have the system forget what it holds of the files in a folder."""
    for path in folder.glob("*.h5"):
        descriptor = os.open(path, os.O_RDONLY)
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
