"""What a training costs beyond its bare steps: reading the store, shuffling, Lightning, history, logging.

    python benchmarks/sae_loop.py [--shapes small main] [--turns 20] [--folder DIR] [--json FILE] [--fast]

Three processes train a TopK autoencoder on the same store: two with the real ``train_saes``, which holds the rows in
memory or reads them from disk, with a CSV logger and the default trainer; the third takes the bare steps (see ours.py)
on batches of the same stream that it has fetched before. They take turns, the others being stopped (SIGSTOP)
meanwhile, so that whatever else the machine does falls on all alike. The claim is the ratio of the sums. AuxK is off:
its cost depends on which features happen to be dead, and the three do not see the same rows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.contestants import ENVIRONMENT, SEED, THREADS, Rows, Shape
from benchmarks.feeding import TURN_ENDS, Run, go_on, stop_after_turn
from benchmarks.synthetic import SITE, Part, write_store
from refusal.activations.samplers import uniform
from refusal.activations.store import ActivationStore

if TYPE_CHECKING:
    from refusal.activations.datamodule import ActivationDataModule
    from refusal.sae.recipe import Recipe

TARGET = 1.15
WARM_UP = 5  # steps that are not counted
POOL = 16  # batches that the bare steps take in turn
LAST_FRACTION = 0.25
KINDS = ("instruction",)
ROWS_PER_PROMPT = 32


class Case(NamedTuple):
    """A shape that is measured."""

    shape: Shape
    steps: int
    """Of a turn."""
    shards: int
    shard_rows: int


CASES = {
    "small": Case(Shape(128, 2_048, 16, 512), 50, 8, 32_768),
    "main": Case(Shape(768, 12_288, 32, 1_024), 5, 8, 16_384),
}
FAST = {"fast": Case(Shape(16, 64, 4, 64), 5, 2, 1_024)}
WAYS = ("bare", "memory", "disk")


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=CASES, default=list(CASES), help="which shapes (all)")
    parser.add_argument("--turns", type=int, default=20, help="turns that each process takes (20)")
    parser.add_argument("--folder", type=Path, help="where to write the store (the system's temporary folder)")
    parser.add_argument("--json", type=Path, default=Path("sae_loop.json"), help="where to write (sae_loop.json)")
    parser.add_argument("--fast", action="store_true", help="one tiny shape, to see that it runs")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)  # what the processes are called with
    options = parser.parse_args()
    cases = FAST if options.fast else {name: CASES[name] for name in options.shapes}
    if options.way:
        train(options.folder, options.way, *cases.values())
    print(f"{'shape':<8}{'fed from':<10}{'ms a step':>10}{'bare':>9}{'ratio':>8}{'median':>8}{'target':>8}")
    results = []
    for name, case in cases.items():
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            write_rows(Path(folder), case)
            results.append({"shape": name, **measure(Path(folder), name, case, options.turns)})
        show(results[-1])
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def measure(folder: Path, name: str, case: Case, n_turns: int) -> dict[str, Any]:
    """Have the three trainings take turns; return what each costs, and the ratios."""
    import torch

    load = os.getloadavg()[0]
    turns: dict[str, list[float]] = {way: [] for way in WAYS}
    with ExitStack() as stack:
        runs = {}
        for way in WAYS:
            runs[way] = start(folder, name, way)
            stack.callback(runs[way].wait)
            stack.callback(runs[way].kill)
            stop_after_turn(runs[way])  # its warm-up
        for turn in range(n_turns):
            for way in WAYS[:: -1 if turn % 2 else 1]:
                began = time.perf_counter()
                go_on(runs[way])
                stop_after_turn(runs[way])
                turns[way].append(time.perf_counter() - began)
    loops = [way for way in WAYS if way != "bare"]
    return {
        "step_ms": {way: 1e3 * sum(seconds) / n_turns / case.steps for way, seconds in turns.items()},
        "ratio": {way: sum(turns[way]) / sum(turns["bare"]) for way in loops},
        "median_ratio": {
            way: statistics.median(a / b for a, b in zip(turns[way], turns["bare"], strict=True)) for way in loops
        },
        "turns": turns,
        "sizes": case.shape._asdict(),
        "versions": {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()},
        "threads": THREADS,
        "load_before": load,
    }


def show(result: dict[str, Any]) -> None:
    """Print a shape's lines."""
    bare = result["step_ms"]["bare"]
    for way, ratio in result["ratio"].items():
        times = f"{result['step_ms'][way]:10.2f}{bare:9.2f}{ratio:8.3f}{result['median_ratio'][way]:8.3f}"
        print(f"{result['shape']:<8}{way:<10}{times}{TARGET:8.2f}", flush=True)


def write_rows(folder: Path, case: Case) -> None:
    """Write the store: a small held-out shard, then shards of harmless and harmful prompts in turn."""
    rows = Rows(case.shape.d_model, case.shape.k)
    parts = [Part("hate", "safe", "heldout", np.full(8, ROWS_PER_PROMPT))]
    lengths = np.full(case.shard_rows // ROWS_PER_PROMPT, ROWS_PER_PROMPT)
    parts += [Part("hate", ("safe", "toxic")[i % 2], "train", lengths) for i in range(case.shards)]
    write_store(
        folder,
        parts,
        d_model=case.shape.d_model,
        dtype="float32",
        values=lambda _, prompt: rows.batch(len(prompt)).numpy(),
    )


def start(folder: Path, name: str, way: str) -> Run:
    """Start a training, which waits after its warm-up and after each turn."""
    command = [sys.executable, __file__, "--way", way, "--folder", str(folder)]
    command += ["--fast"] if name in FAST else ["--shapes", name]
    return subprocess.Popen(
        command, env={**os.environ, **ENVIRONMENT}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def train(folder: Path, way: str, case: Case) -> None:
    """Train in this process, until it is killed."""
    import torch

    from benchmarks.ours import recipe_of
    from refusal.activations.datamodule import ActivationDataModule

    torch.set_num_threads(THREADS)
    recipe = recipe_of("topk", **case.shape._asdict(), seed=SEED)
    recipe = replace(recipe, options={**recipe.options, "aux_k": 0})
    store = ActivationStore(folder)
    held = case.shards * case.shard_rows * case.shape.d_model if way == "disk" else 1 << 50  # bytes: a quarter
    rows = partial(ActivationDataModule, memory_bytes=held)
    if way != "bare":
        train_whole(store, recipe, rows, case.steps)
    fetched = rows(
        store,
        [SITE],
        uniform.weights,
        batch_size=recipe.batch_size,
        n_steps=POOL,
        last_fraction=LAST_FRACTION,
        kinds=KINDS,
    )
    take_steps([batch[0].clone() for batch in islice(fetched.stream, POOL)], recipe, case.steps)


def take_steps(batches: list[Any], recipe: Recipe, turn: int) -> None:
    """Take bare steps."""
    from benchmarks.ours import Training

    training = Training(recipe, batches[0], recipe.max_rows // recipe.batch_size)
    for done in count(1):
        training.step(batches[done % POOL])
        end_turn(done, turn)


def train_whole(store: ActivationStore, recipe: Recipe, rows: Callable[..., ActivationDataModule], turn: int) -> None:
    """Train with the real ``train_saes``; only where its rows are held is set from here."""
    import pytorch_lightning as pl
    from pytorch_lightning.loggers import CSVLogger

    from benchmarks.ours import trainer_options
    from refusal.sae.training import train as training

    class Turns(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            end_turn(batch_idx + 1, turn)

    training.ActivationDataModule = rows  # type: ignore[misc]
    with tempfile.TemporaryDirectory(dir=store.folder) as out:
        training.train_saes(
            store,
            [training.Job(SITE, SEED, Path(out), SITE)],
            recipe,
            model="synthetic",
            sampler=uniform.weights,
            order_seed=0,
            last_fraction=LAST_FRACTION,
            kinds=KINDS,
            trainer={**trainer_options(), "callbacks": [Turns()]},
            logger=CSVLogger(out),
            checkpoints=Path(out),
        )


def end_turn(done: int, turn: int) -> None:
    """Say that a turn is over, if it is, and wait for the next one."""
    if done >= WARM_UP and (done - WARM_UP) % turn == 0:
        print(TURN_ENDS, end="", flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    sys.exit(main())
