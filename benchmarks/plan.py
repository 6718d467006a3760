"""Is what ``plan=true`` says true? Rows and bytes exactly, memory within 20 %, time within a factor of 1.5.

For each study: the plan, then the run itself, each a fresh process; the run's memory and seconds are those that the
system counts, its rows and bytes those of the store. Rounds alternate, as machines are noisy; the median is the claim.

    python benchmarks/plan.py [--rounds N] [--json FILE] [--model DIR] [--max-per-category N ...]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import h5py
import torch

from refusal.activations.shard import dataset, open_shard

ROOT = Path(__file__).resolve().parents[1]


def command(folder: Path, *overrides: str) -> tuple[str, float, int]:
    """Run collect.py in a fresh process; return its output, its wall seconds and its largest resident memory."""
    arguments = [sys.executable, str(ROOT / "collect.py"), f"output_dir={folder}", "logger=none", *overrides]
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(arguments, cwd=ROOT, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(arguments)} failed")
        output.seek(0)
        return output.read(), seconds, usage.ru_maxrss * 1024


def predicted(output: str) -> dict[str, float]:
    """Return the numbers in a plan."""

    def number(pattern: str) -> float:
        found = re.search(pattern, output, re.MULTILINE)
        assert found, f"{pattern} is not in the plan:\n{output}"
        return float(found[1].replace(",", "")) * (60 if found.group(found.lastindex or 1) == "min" else 1)

    return {
        "rows": number(r"^rows +([\d,]+)"),
        "activation_bytes": number(r"([\d,]+) bytes of it activations"),
        "file_bytes": number(r"^disk +([\d.]+) GB") * 1e9,
        "peak_bytes": number(r"^memory +([\d.]+) GB") * 1e9,
        "seconds": number(r"^time +(\d+) (s|min)"),
    }


def measured(folder: Path, seconds: float, peak: int) -> dict[str, float]:
    """Return what a run took."""
    rows = numbers = size = 0
    for path in folder.glob("*/activations/*/shard-*.h5"):
        size += path.stat().st_size
        with open_shard(path) as file:
            names = [
                *(f"activations/{site}" for site in cast(h5py.Group, file["activations"])),
                *(["writes"] if "writes" in file else []),
            ]
            rows += len(dataset(file, "rows/prompt"))
            numbers += sum(dataset(file, name).nbytes for name in names)
    return {
        "rows": rows,
        "activation_bytes": numbers,
        "file_bytes": size,
        "peak_bytes": peak,
        "seconds": seconds,
    }


def study(name: str, rounds: int, *overrides: str) -> dict[str, Any]:
    """Plan and run a study some times; return medians, and their ratios."""
    plans, runs = [], []
    for _ in range(rounds):
        folder = Path(tempfile.mkdtemp(prefix="plan-"))
        try:
            output, planning, _ = command(folder, *overrides, "plan=true")
            plans.append({**predicted(output), "planning_seconds": planning})
            shutil.rmtree(folder)
            runs.append(measured(folder, *command(folder, *overrides)[1:]))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    result: dict[str, Any] = {"overrides": list(overrides), "plans": plans, "runs": runs, "ratio": {}}
    print(f"\n{name}\n{'':18s}{'predicted':>16s}{'measured':>16s}{'ratio':>8s}")
    for figure in runs[0]:
        plan, run = (statistics.median(each[figure] for each in some) for some in (plans, runs))
        result["ratio"][figure] = plan / run
        print(f"{figure:18s}{plan:16,.0f}{run:16,.0f}{plan / run:8.3f}", flush=True)
    print(f"the plan itself took {statistics.median(plan['planning_seconds'] for plan in plans):.0f} s", flush=True)
    return result


def main() -> None:
    """Run the studies, print their tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("plan.json"), help="where to write (plan.json)")
    parser.add_argument("--model", type=Path, help="also plan this model, on the small part of OR-Bench")
    parser.add_argument("--max-per-category", type=int, nargs="+", default=[10, 30])
    arguments = parser.parse_args()
    result: dict[str, Any] = {"planted": study("planted", arguments.rounds)}
    for n in arguments.max_per_category if arguments.model else []:
        overrides = ("model=local", f"model.path={arguments.model.resolve()}", "data=orbench_mini", "layers=all")
        name = f"{arguments.model.name}, {n} prompts a category and split"
        result[name] = study(name, arguments.rounds, *overrides, f"data.max_per_category={n}")
    result["versions"] = {"python": platform.python_version(), "torch": torch.__version__}
    result["cores"], result["load"] = os.cpu_count(), os.getloadavg()
    arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
