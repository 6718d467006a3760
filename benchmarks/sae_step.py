"""What a TopK training step costs against its floor, the encoder's matrix product alone.

    python benchmarks/sae_step.py [--shapes small main llama] [--rounds 5] [--json FILE] [--quality]

Each shape runs in a process of its own: forward, backward, fused Adam and normalisation of the decoder, float32,
two threads, without AuxK; the two contestants take turns, and of each the best of the rounds' medians counts,
because machines are shared. Memory is the growth of the process's peak over its first steps. ``--quality`` also
trains 300 steps on synthetic rows: 4,096 unit directions, Zipf frequencies, 5 % noise; FVU on 4,096 held-out rows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from refusal.sae.base import SparseAutoencoder

ROOT = Path(__file__).parents[1]
SHAPES = {  # d_model, d_sae, k, batch, steps a round
    "small": (128, 2_048, 16, 512, 10),
    "main": (768, 12_288, 32, 1_024, 5),
    "llama": (4_096, 8_192, 64, 512, 3),
}
TARGETS = {"small": 4.0, "main": 1.6, "llama": 2.3}
THREADS = 2
ENVIRONMENT = {  # spinning threads lose whole scheduler slices where another job runs
    "OMP_WAIT_POLICY": "PASSIVE",
    "OMP_NUM_THREADS": str(THREADS),
    "MKL_NUM_THREADS": str(THREADS),
    "PYTHONPATH": str(ROOT),
}
NEVER = 1 << 60


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES), help="which shapes (all)")
    parser.add_argument("--rounds", type=int, default=5, help="turns that each contestant takes (5)")
    parser.add_argument("--json", type=Path, default=Path("sae_step.json"), help="where to write (sae_step.json)")
    parser.add_argument("--quality", action="store_true", help="also train 300 steps on the small shape")
    parser.add_argument("--one", choices=SHAPES, help=argparse.SUPPRESS)  # what the processes are called with
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_shape(options.one, options.rounds, options.quality)))
        return 0
    results = [_in_a_process(shape, options.rounds, options.quality) for shape in options.shapes]
    print(f"{'shape':<8}{'GEMM ms':>9}{'step ms':>9}{'ratio':>7}{'target':>8}{'peak MB':>9}{'FVU':>8}")
    for result in results:
        fvu = f"{result['fvu']:8.3f}" if "fvu" in result else ""
        print(
            f"{result['shape']:<8}{result['gemm_ms']:9.2f}{result['step_ms']:9.2f}{result['ratio']:7.2f}"
            f"{TARGETS[result['shape']]:8.1f}{result['peak_growth_mb']:9.0f}{fvu}"
        )
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def run_shape(shape: str, rounds: int, with_quality: bool) -> dict[str, Any]:
    """Measure one shape in this process."""
    import torch

    torch.set_num_threads(THREADS)
    d_model, d_sae, k, batch, steps = SHAPES[shape]
    generator = torch.Generator().manual_seed(0)
    pool = [torch.randn(batch, d_model, generator=generator) for _ in range(4)]
    sae, step = make_step(d_model, d_sae, k, batch)
    sae.fit_units(pool[0])
    before = _peak_mb()
    for x in pool:
        step(x)
    grown = _peak_mb() - before
    W_enc = torch.randn(d_model, d_sae, generator=generator)
    contestants: dict[str, Callable[[torch.Tensor], Any]] = {"gemm": lambda x: x @ W_enc, "step": step}
    medians: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            medians[name].append(statistics.median(_milliseconds(run, pool[i % 4]) for i in range(steps)))
    best = {f"{name}_ms": min(values) for name, values in medians.items()}
    result = {"shape": shape, **best, "ratio": best["step_ms"] / best["gemm_ms"], "peak_growth_mb": grown}
    if with_quality and shape == "small":
        result["fvu"] = train_quality(d_model, d_sae, k, batch)
    sizes = {"d_model": d_model, "d_sae": d_sae, "k": k, "batch": batch, "threads": THREADS, "rounds": rounds}
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    return {**result, **sizes, **versions, "load": os.getloadavg()[0]}


def make_step(
    d_model: int, d_sae: int, k: int, batch: int, lr: float = 2e-3
) -> tuple[SparseAutoencoder, Callable[[torch.Tensor], Any]]:
    """Return an autoencoder and its training step as Lightning drives it, without Lightning."""
    import torch

    from refusal.sae.recipe import Recipe
    from refusal.sae.topk import TopK
    from refusal.sae.training import ADAM_EPS

    recipe = Recipe("refusal.sae.topk.TopK", d_sae, k, lr, batch, 1, NEVER, 0, d_model // 2, 1 / 32, NEVER)
    sae = TopK(d_model, d_sae, k, recipe=recipe)
    optimizer = torch.optim.Adam(sae.parameters(), lr=lr, eps=ADAM_EPS, fused=True)

    def step(x: torch.Tensor) -> None:
        optimizer.zero_grad()
        sae.step(x, 0.5).loss.backward()
        optimizer.step()
        sae.after_update()

    return sae, step


def train_quality(d_model: int, d_sae: int, k: int, batch: int, steps: int = 300) -> float | None:
    """Return the FVU on held-out rows after so many steps on synthetic ones."""
    import torch

    from refusal.sae.metrics import fvu

    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(4096, d_model, generator=generator), dim=1)
    frequencies = 1 / (torch.arange(4096.0) + 10)

    def rows(n: int) -> torch.Tensor:
        chosen = torch.multinomial(frequencies, n * k, replacement=True, generator=generator).view(n, k)
        sizes = torch.rand(n, k, generator=generator) + 0.5
        signal = torch.nn.functional.embedding_bag(chosen, directions, per_sample_weights=sizes, mode="sum")
        signal *= 0.95**0.5 / signal.square().mean().sqrt()
        return signal + 0.05**0.5 * torch.randn(n, d_model, generator=generator)

    heldout = rows(4096)
    sae, step = make_step(d_model, d_sae, k, batch)
    sae.fit_units(heldout)
    for _ in range(steps):
        step(rows(batch))
    return fvu(heldout, sae.decode_sparse(*sae.sparse_codes(heldout)))


def _in_a_process(shape: str, rounds: int, with_quality: bool) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", shape, "--rounds", str(rounds), *["--quality"] * with_quality]
    done = subprocess.run(command, env={**os.environ, **ENVIRONMENT}, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _milliseconds(run: Callable[[torch.Tensor], Any], x: torch.Tensor) -> float:
    start = time.perf_counter()
    run(x)
    return (time.perf_counter() - start) * 1e3


def _peak_mb() -> float:
    """Return the process's peak memory (kilobytes on Linux, bytes on macOS)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    sys.exit(main())
