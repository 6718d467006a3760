"""Training steps that are compared: this package's, its peers', and the encoder's matrix product alone.

    PYTHON benchmarks/contestants.py NAME D_MODEL D_SAE K BATCH [--train STEPS] [--lr-factor F]

One contestant in this process, under the python in which its library is installed. It is set up, takes a few steps,
and writes a line of JSON: versions, and memory. Then it waits for lines on its standard input: each is a number of
steps, which it takes, answering with their median time. With ``--train`` it trains from the start on fresh rows
instead, and answers with the FVU on rows that it has not seen.

Every library runs its own step as it would by itself: forward, backward, optimiser, decoder's norm, in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

THREADS = 2
ENVIRONMENT = {  # spinning threads lose whole scheduler slices where another job runs
    "OMP_WAIT_POLICY": "PASSIVE",
    "OMP_NUM_THREADS": str(THREADS),
    "MKL_NUM_THREADS": str(THREADS),
    "NUMBA_NUM_THREADS": str(THREADS),
    "HF_HUB_OFFLINE": "1",
    "WANDB_MODE": "disabled",
    "PYTHONPATH": str(Path(__file__).parents[1]),
}
if __name__ == "__main__":
    os.environ.update(ENVIRONMENT)

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

NOISE = 0.05
N_DIRECTIONS = 4096
HELDOUT_ROWS = 4096
POOL, WARM_UP = 4, 3  # batches that the timed steps take in turn; steps before the first that is timed
DEAD_SHARE = 0.05
SEED = 1
"""Of the first weights; that of the rows is 0, and equal ones would begin with the rows' own directions."""
LONG = 10**6
"""Steps of a training that is only timed."""


class Shape(NamedTuple):
    """Sizes of a training."""

    d_model: int
    d_sae: int
    k: int
    batch: int


TINY = Shape(16, 64, 4, 32)


class Work(NamedTuple):
    """What a contestant is set up for."""

    shape: Shape
    first: Tensor
    """The first batch."""
    steps: int
    """Of the whole training."""
    lr_factor: float
    """How much the learning rate differs from the library's default."""


class Contestant(NamedTuple):
    """A training, ready for its first step."""

    step: Callable[[Tensor], object]
    """Takes rows [batch, d_model]."""
    reconstruct: Callable[[Tensor], Tensor]
    library: str
    """The distribution whose version counts."""


class Rows:
    """Rows with known directions, from one generator: directions, then held-out rows, then the training's.

    x = s + noise; s is a sum of k directions, drawn with replacement with Zipf frequencies 1 / (rank + 10), times
    coefficients from U(0.5, 1.5). The mean square of a coordinate is 1, and noise is 5 % of it.
    """

    def __init__(self, d_model: int, k: int, n_directions: int = N_DIRECTIONS, seed: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._k = k
        directions = torch.randn(n_directions, d_model, generator=self._generator)
        self.directions = directions / directions.norm(dim=1, keepdim=True)
        frequencies = 1 / (torch.arange(n_directions, dtype=torch.float64) + 10)
        self._cumulated = torch.cumsum(frequencies / frequencies.sum(), 0)
        self._size = self._sums(8192).square().mean().sqrt()
        self.heldout = self.batch(HELDOUT_ROWS)

    def batch(self, n: int) -> Tensor:
        """Return the next n rows, [n, d_model]."""
        signal = self._sums(n) / self._size * (1 - NOISE) ** 0.5
        return signal + NOISE**0.5 * torch.randn(signal.shape, generator=self._generator)

    def _sums(self, n: int) -> Tensor:
        drawn = torch.rand(n * self._k, generator=self._generator, dtype=torch.float64)
        chosen = torch.searchsorted(self._cumulated, drawn).clamp_(max=len(self.directions) - 1).view(n, self._k)
        sizes = torch.rand(n, self._k, generator=self._generator) + 0.5
        return torch.nn.functional.embedding_bag(chosen, self.directions, per_sample_weights=sizes, mode="sum")


def ours(work: Work, n_dead: int = 0) -> Contestant:
    """Return this package's step with its default options; its last ``n_dead`` features never fire by themselves."""
    from benchmarks.ours import Training, recipe_of

    recipe = recipe_of("topk", **work.shape._asdict(), seed=SEED)
    training = Training(replace(recipe, lr=recipe.lr * work.lr_factor), work.first, work.steps)
    if n_dead:
        with torch.no_grad():
            training.sae.b_enc[-n_dead:] -= 1000.0
            training.sae.rows_since_fired[-n_dead:] = recipe.dead_after_rows
    return Contestant(training.step, training.reconstruct, "refusal-circuits")


def ours_with_dead(work: Work) -> Contestant:
    """Return this package's step with 5 % dead features, which AuxK trains."""
    return ours(work, n_dead=round(DEAD_SHARE * work.shape.d_sae))


def gemm(work: Work) -> Contestant:
    """Return the encoder's matrix product alone, below which no step can go."""
    W_enc = torch.randn(work.shape.d_model, work.shape.d_sae, generator=torch.Generator().manual_seed(0))
    return Contestant(lambda x: x @ W_enc, lambda x: x, "torch")


def sparsify(work: Work) -> Contestant:
    """Return the body of sparsify's ``Trainer.fit`` with its defaults: signSGD, schedule-free; no AuxK."""
    from schedulefree import ScheduleFreeWrapper  # pyright: ignore[reportMissingImports]
    from sparsify.config import SparseCoderConfig  # pyright: ignore[reportMissingImports]
    from sparsify.sign_sgd import SignSGD  # pyright: ignore[reportMissingImports]
    from sparsify.sparse_coder import SparseCoder  # pyright: ignore[reportMissingImports]

    shape = work.shape
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")  # as its trainer does
    config = SparseCoderConfig(num_latents=shape.d_sae, k=shape.k)
    coder = SparseCoder(shape.d_model, config, "cpu", dtype=torch.float32)
    lr = work.lr_factor * 5e-3 / (shape.d_sae / 2**14) ** 0.5
    optimizer = ScheduleFreeWrapper(SignSGD([{"params": coder.parameters(), "lr": lr}]), momentum=0.95)
    optimizer.train()
    coder.b_dec.data = work.first.mean(0)
    rows_since_fired = torch.zeros(shape.d_sae, dtype=torch.int64)

    def step(x: Tensor) -> None:
        coder.set_decoder_norm_to_unit_norm()
        out = coder(x=x, y=x, dead_mask=None, total_variance=(x - x.mean(0)).square().sum())
        float(out.fvu.detach())  # it is read for the log in every step
        (out.fvu + 0.0 * out.auxk_loss + out.multi_topk_fvu / 8).backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()
        rows_since_fired.add_(len(x))[out.latent_indices.flatten()] = 0

    def reconstruct(x: Tensor) -> Tensor:
        optimizer.eval()  # the averaged weights, which its trainer saves
        return coder(x).sae_out

    return Contestant(step, reconstruct, "eai-sparsify")


def sae_lens(work: Work, sparse: bool = False) -> Contestant:
    """Return ``SAETrainer.step`` with its defaults: Adam, gradients clipped, auxiliary loss, statistics of firing."""
    from sae_lens.config import SAETrainerConfig  # pyright: ignore[reportMissingImports]
    from sae_lens.saes.topk_sae import (  # pyright: ignore[reportMissingImports]
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
    )
    from sae_lens.training.sae_trainer import SAETrainer  # pyright: ignore[reportMissingImports]

    shape = work.shape
    torch.manual_seed(SEED)
    sae = TopKTrainingSAE(
        TopKTrainingSAEConfig(
            d_in=shape.d_model,
            d_sae=shape.d_sae,
            k=shape.k,
            use_sparse_activations=sparse,
            rescale_acts_by_decoder_norm=not sparse,  # with both, its backward fails on a CPU
        )
    )
    lr = 3e-4 * work.lr_factor
    config = SAETrainerConfig(
        total_training_samples=LONG * shape.batch, train_batch_size_samples=shape.batch, lr=lr, lr_end=lr / 10
    )  # the rate stays constant: lr_end is only read by other schedules
    trainer = SAETrainer(config, sae, data_provider=iter(()))

    def step(x: Tensor) -> None:
        trainer.step(x)
        trainer.n_training_steps += 1

    return Contestant(step, lambda x: sae.decode(sae.encode(x)), "sae-lens")


def sae_lens_sparse(work: Work) -> Contestant:
    """Return the same with ``use_sparse_activations``."""
    return sae_lens(work, sparse=True)


def dictionary_learning(work: Work) -> Contestant:
    """Return ``TopKTrainer.update`` with its defaults but for the warm-up, which 300 steps would not survive."""
    from dictionary_learning.trainers.top_k import TopKTrainer  # pyright: ignore[reportMissingImports]

    shape = work.shape
    trainer = TopKTrainer(
        steps=LONG,
        activation_dim=shape.d_model,
        dict_size=shape.d_sae,
        k=shape.k,
        layer=0,
        lm_name="none",
        warmup_steps=0,
        lr=work.lr_factor * 2e-4 / (shape.d_sae / 2**14) ** 0.5,
        seed=SEED,
        device="cpu",
    )
    n_steps = iter(range(LONG))
    return Contestant(lambda x: trainer.update(next(n_steps), x), trainer.ae, "dictionary-learning")


OURS = {"gemm": gemm, "ours": ours, "ours_with_dead": ours_with_dead}
PEERS = {
    "sparsify": sparsify,
    "sae_lens_sparse": sae_lens_sparse,
    "sae_lens": sae_lens,
    "dictionary_learning": dictionary_learning,
}


def main() -> None:
    """Run one contestant."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices={**OURS, **PEERS})
    parser.add_argument("shape", type=int, nargs=4, metavar="N", help="d_model, d_sae, k, batch")
    parser.add_argument("--train", type=int, metavar="STEPS")
    parser.add_argument("--lr-factor", type=float, default=1.0)
    options = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the libraries print is no answer
    warnings.simplefilter("ignore")
    torch.set_num_threads(THREADS)
    shape, make = Shape(*options.shape), {**OURS, **PEERS}[options.name]
    rows = Rows(shape.d_model, shape.k)
    if options.train:
        answers.write(json.dumps(train(make, shape, rows, options.train, options.lr_factor)) + "\n")
        return
    for answer in timings(make, shape, rows):
        answers.write(json.dumps(answer) + "\n")


def timings(make: Callable[[Work], Contestant], shape: Shape, rows: Rows) -> Any:
    """Yield what the set-up and the first steps took, then the time of as many steps as each line asks for."""
    pool = [rows.batch(shape.batch) for _ in range(POOL)]
    rehearse(make)
    contestant = make(Work(shape, pool[0], LONG, 1.0))
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the set-up
    before = memory_mb("VmRSS")
    for x in pool[:WARM_UP]:
        contestant.step(x)
    names = ("torch", contestant.library)
    yield {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in names}},
        "before_mb": before,
    }
    for line in sys.stdin:
        seconds = []
        for i in range(int(line)):
            start = time.perf_counter()
            contestant.step(pool[i % POOL])
            seconds.append(time.perf_counter() - start)
        yield {"ms": 1e3 * statistics.median(seconds), "peak_mb": memory_mb("VmHWM")}


def rehearse(make: Callable[[Work], Contestant]) -> None:
    """Take steps of a tiny training, so that code which is loaded when it is first used does not count as memory."""
    rows = Rows(TINY.d_model, TINY.k, TINY.d_sae)
    x = rows.batch(TINY.batch)
    contestant = make(Work(TINY, x, LONG, 1.0))
    for _ in range(WARM_UP):
        contestant.step(x)


def train(
    make: Callable[[Work], Contestant], shape: Shape, rows: Rows, steps: int, lr_factor: float
) -> dict[str, float]:
    """Train, and return the FVU of held-out rows."""
    x = rows.batch(shape.batch)
    contestant = make(Work(shape, x, steps, lr_factor))
    for i in range(steps):
        contestant.step(x if i == 0 else rows.batch(shape.batch))
    x = rows.heldout
    with torch.no_grad():
        error = x - contestant.reconstruct(x)
    return {"fvu": float(error.square().sum() / (x - x.mean(0)).square().sum()), "lr_factor": lr_factor}


def memory_mb(field: str) -> float:
    """Return the process's resident memory, ``VmRSS``, or its peak, ``VmHWM``."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024


if __name__ == "__main__":
    main()
