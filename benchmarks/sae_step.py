"""What a TopK training step costs: against the same step of other libraries, and the encoder's matrix product alone.

    python benchmarks/sae_step.py [--peers PYTHON] [--shapes small main llama] [--rounds 5] [--json FILE] [--fast]

Every contestant (see contestants.py) lives in a process of its own, with the same rows and seed, float32, two threads.
They take turns: while one takes its steps all others wait for a line on their standard input, which costs nothing.
Of each the best of the turns' medians counts, because machines are shared. Memory is the growth of the process from
just before its first step to its peak, after a tiny training that loads all code; and that peak itself. On the main
shape there is also our step with 5 % dead features, which AuxK trains.

The peers live in an environment of their own, whose python ``--peers`` names (or REFUSAL_PEERS_PYTHON); without one,
only our step is measured:
    pip install "torch<2.14" sae-lens eai-sparsify dictionary-learning; pip uninstall torchvision
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.contestants import ENVIRONMENT, PEERS, THREADS, Shape


class Case(NamedTuple):
    """A shape that is measured."""

    shape: Shape
    steps: int
    """Of a turn."""
    gemms: float
    """Target: our step costs at most so many times the encoder's matrix product."""
    with_dead: bool = False


CASES = {
    "small": Case(Shape(128, 2_048, 16, 512), 20, 4.0),
    "main": Case(Shape(768, 12_288, 32, 1_024), 5, 1.6, with_dead=True),
    "llama": Case(Shape(4_096, 8_192, 64, 512), 3, 2.3),
}
FAST = {"fast": Case(Shape(16, 64, 4, 32), 2, 4.0, with_dead=True)}
TARGETS = {"sparsify": 1.6, "sae_lens_sparse": 2.4, "sae_lens": 3.3}
"""How many of our steps a peer's step must be worth."""


class Process:
    """A contestant in a process of its own; it rests but for its turns."""

    def __init__(self, python: str, name: str, shape: Shape) -> None:
        command = [python, str(Path(__file__).with_name("contestants.py")), name, *map(str, shape)]
        self._process = subprocess.Popen(
            command, env={**os.environ, **ENVIRONMENT}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.about: dict[str, Any] = {}
        self.ms: list[float] = []
        self.peak_mb = 0.0

    def wait(self) -> None:
        """Wait until it is set up."""
        self.about = self._answer()

    def turn(self, steps: int) -> None:
        """Have it take some steps."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        answer = self._answer()
        self.ms.append(answer["ms"])
        self.peak_mb = answer["peak_mb"]

    def close(self) -> None:
        """Have it end."""
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(map(str, self._process.args))} ended with {self._process.wait()}")  # type: ignore[arg-type]
        return json.loads(line)


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    peers_python = os.environ.get("REFUSAL_PEERS_PYTHON")
    parser.add_argument("--peers", metavar="PYTHON", default=peers_python, help="python of the peers' environment")
    parser.add_argument("--shapes", nargs="+", choices=CASES, default=list(CASES), help="which shapes (all)")
    parser.add_argument("--rounds", type=int, default=5, help="turns that each contestant takes (5)")
    parser.add_argument("--json", type=Path, default=Path("sae_step.json"), help="where to write (sae_step.json)")
    parser.add_argument("--fast", action="store_true", help="one tiny shape, to see that it runs")
    options = parser.parse_args()
    results = []
    for name, case in (FAST if options.fast else {name: CASES[name] for name in options.shapes}).items():
        results.append({"shape": name, **measure(case, options.peers, options.rounds)})
        show(results[-1], case)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def measure(case: Case, peers_python: str | None, rounds: int) -> dict[str, Any]:
    """Have the contestants of one shape take turns."""
    pythons = dict.fromkeys(("gemm", "ours", *["ours_with_dead"] * case.with_dead), sys.executable)
    pythons |= dict.fromkeys(PEERS, peers_python) if peers_python else {}
    load = os.getloadavg()[0]
    processes = {name: Process(python, name, case.shape) for name, python in pythons.items()}
    for process in processes.values():
        process.wait()
    for _ in range(rounds):
        for process in processes.values():
            process.turn(case.steps)
    for process in processes.values():
        process.close()
    contestants = {name: result_of(process) for name, process in processes.items()}
    settings = {"threads": THREADS, "rounds": rounds, "steps": case.steps, "load_before": load, "cores": os.cpu_count()}
    return {"contestants": contestants, "sizes": case.shape._asdict(), **settings}


def result_of(process: Process) -> dict[str, Any]:
    """Return a contestant's figures."""
    growth = process.peak_mb - process.about["before_mb"]
    memory = {"growth_mb": growth, "peak_mb": process.peak_mb}
    return {"ms": min(process.ms), **memory, "turns_ms": process.ms, "versions": process.about["versions"]}


def show(result: dict[str, Any], case: Case) -> None:
    """Print a shape's table, with what our step must reach."""
    contestants = result["contestants"]
    floor, our = contestants["gemm"]["ms"], contestants["ours"]["ms"]
    print(f"\n{result['shape']}: " + ", ".join(f"{name} {size:,}" for name, size in result["sizes"].items()))
    print(f"{'':<22}{'ms':>9}{'x GEMM':>9}{'x ours':>9}{'target':>9}{'growth MB':>11}{'peak MB':>9}")
    for name, own in contestants.items():
        target = f"<={case.gemms} GEMM" if name == "ours" else f">={TARGETS[name]}" if name in TARGETS else ""
        times = f"{own['ms']:9.2f}{own['ms'] / floor:9.2f}{own['ms'] / our:9.2f}{target:>11}"
        print(f"{name:<22}{times}{own['growth_mb']:9.0f}{own['peak_mb']:9.0f}", flush=True)
    leanest = min((contestants[name]["growth_mb"] for name in PEERS if name in contestants), default=None)
    if leanest is not None:
        print(
            f"memory: ours {contestants['ours']['growth_mb']:.0f} MB, target at most the leanest peer's {leanest:.0f}"
        )


if __name__ == "__main__":
    sys.exit(main())
