"""How well the autoencoders learn, with the steps that sae_step.py times.

    python benchmarks/sae_quality.py [--peers PYTHON] [--architectures topk batch_topk] [--json FILE] [--fast]

1. FVU on 4,096 held-out rows after 300 steps on the small shape's rows (see contestants.py), which are the same for
   this package and its peers; default options, and of each the best of a few learning rates.
2. Recovery: rows made of 512 known directions (d_model 128, k 8, 5 % noise), 5,000 steps with as many features. For
   each direction the largest cosine with a row of the decoder; the mean of these. Architectures other than topk and
   batch_topk are there for comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.contestants import ENVIRONMENT, PEERS, SEED, THREADS, Rows, Shape

os.environ.update(ENVIRONMENT)


class Work(NamedTuple):
    """What is trained, and for how long."""

    shape: Shape
    steps: int
    recovery_shape: Shape
    recovery_steps: int
    n_directions: int


FULL = Work(Shape(128, 2_048, 16, 512), 300, Shape(128, 512, 8, 512), 5_000, 512)
FAST = Work(Shape(16, 64, 4, 64), 5, Shape(16, 32, 2, 64), 20, 32)
LR_FACTORS = (1.0, 5.0, 10.0, 20.0)
FVU, RECOVERY = 0.41, 0.95
RECOVERING = ("topk", "batch_topk")
ARCHITECTURES = Path(__file__).parents[1] / "refusal" / "sae" / "architectures"


def main() -> int:
    """Run the command; return its exit status."""
    known = sorted(path.stem for path in ARCHITECTURES.glob("[!_]*.py"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    peers_python = os.environ.get("REFUSAL_PEERS_PYTHON")
    parser.add_argument("--peers", metavar="PYTHON", default=peers_python, help="python of the peers' environment")
    parser.add_argument("--architectures", nargs="*", choices=known, default=known, help="for the recovery (all)")
    parser.add_argument("--json", type=Path, default=Path("sae_quality.json"), help="where (sae_quality.json)")
    parser.add_argument("--fast", action="store_true", help="tiny trainings, to see that it runs")
    options = parser.parse_args()
    work = FAST if options.fast else FULL
    result: dict[str, Any] = {"threads": THREADS, "load": os.getloadavg()[0], "fvu": {}, "recovery": {}}
    print(f"FVU of held-out rows after {work.steps} steps; target for ours at most {FVU}")
    pythons = {"ours": sys.executable, **(dict.fromkeys(PEERS, options.peers) if options.peers else {})}
    for name, python in pythons.items():
        runs = [fvu(python, name, work, factor) for factor in LR_FACTORS]
        best = min(runs, key=lambda run: run["fvu"])
        result["fvu"][name] = {"best": best["fvu"], "runs": runs}
        by_default = f"{runs[0]['fvu']:.4f} at its own"
        print(f"{name:<22}{best['fvu']:8.4f}   at {best['lr_factor']:g} x its learning rate, {by_default}", flush=True)
    print(f"Mean max cosine with {work.n_directions} directions after {work.recovery_steps} steps; target {RECOVERY}")
    for name in options.architectures:
        result["recovery"][name] = recovery(name, work)
        cosine, seconds = result["recovery"][name].values()
        target = f"at least {RECOVERY}" if name in RECOVERING else ""
        print(f"{name:<22}{cosine:8.4f}   in {seconds:.0f} s  {target}", flush=True)
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def fvu(python: str, name: str, work: Work, lr_factor: float) -> dict[str, Any]:
    """Train a contestant in a process of its own."""
    script = str(Path(__file__).with_name("contestants.py"))
    settings = ["--train", str(work.steps), "--lr-factor", str(lr_factor)]
    command = [python, script, name, *map(str, work.shape), *settings]
    done = subprocess.run(command, env=dict(os.environ), check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def recovery(architecture: str, work: Work) -> dict[str, float]:
    """Train an architecture on rows of known directions; return how much of these it has, and the seconds it took."""
    import torch

    from benchmarks.ours import Training, recipe_of

    torch.set_num_threads(THREADS)
    shape = work.recovery_shape
    rows = Rows(shape.d_model, shape.k, work.n_directions)
    training = Training(recipe_of(architecture, **shape._asdict(), seed=SEED), rows.heldout, work.recovery_steps)
    start = time.perf_counter()
    for _ in range(work.recovery_steps):
        training.step(rows.batch(shape.batch))
    seconds = time.perf_counter() - start
    learned = torch.nn.functional.normalize(training.sae.directions.detach(), dim=1)
    return {"cosine": float((rows.directions @ learned.T).amax(1).mean()), "seconds": seconds}


if __name__ == "__main__":
    sys.exit(main())
