"""Kill collections at random moments (SIGKILL), resume each, and compare its store with an uninterrupted one.

    python benchmarks/kill_resume.py [--kills 50] [--seed 0] [--json FILE]

The model is a planted one of four blocks, with 18 shards in 6 waves. Each kill has a folder of its own and a process
of its own. The phases take turns; the moment is drawn from the whole length that the phase has in an uninterrupted
run. Which phase it hit is read from the files that the dead process left:

    calibration   shards of the calibration fold are missing
    scoring       they are all there, and some wait for their scores
    main          other shards are missing
    finishing     all shards are there, the manifest is not

Stores are compared file by file, dataset by dataset and attribute by attribute, to the bit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.update({"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"})

import numpy as np  # noqa: E402
import torch  # noqa: E402

from refusal.activations import plan  # noqa: E402
from refusal.activations.collect import PLAN, collect  # noqa: E402
from refusal.activations.labels import unscored_path  # noqa: E402
from refusal.activations.plan import CALIBRATION  # noqa: E402
from refusal.activations.recipe import Recipe  # noqa: E402
from refusal.activations.store import MANIFEST  # noqa: E402
from refusal.artifacts import read_json  # noqa: E402
from refusal.models.chat import load_chat_model  # noqa: E402
from refusal.models.planted import write_planted  # noqa: E402
from refusal.models.planted_plan import Plan  # noqa: E402
from refusal.models.sites import parse_site  # noqa: E402
from refusal.prompts.planted import make_vocabulary, planted_prompts  # noqa: E402
from refusal.prompts.prompt import FOLDS  # noqa: E402
from tests.activations.same_store import differences  # noqa: E402

PHASES = ("calibration", "scoring", "main", "finishing")
SITES = tuple(parse_site(name) for name in ("attention_0", "mlp_2", "residuals_2"))
POLL_SECONDS = 0.0005

Job = Callable[[Path], object]


@dataclass(frozen=True)
class Kill:
    """One collection that was killed and resumed."""

    phase: str
    seconds: float
    """After its start."""
    n_shards: int
    """That were there when it died."""
    differences: list[str]
    """Of the resumed store from the uninterrupted one."""


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="how many (50)")
    parser.add_argument("--seed", type=int, default=0, help="what the moments follow from (0)")
    parser.add_argument("--json", type=Path, default=Path("kill_resume.json"), help="where to write (kill_resume.json)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kills = run_kills(Path(folder), options.kills, options.seed)
    n_same = sum(not kill.differences for kill in kills)
    hits = Counter(kill.phase for kill in kills)
    print(f"{len(kills)} kills ({', '.join(f'{phase} {hits[phase]}' for phase in PHASES)}): {n_same} identical stores")
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    content = {"seed": options.seed, **versions, "phases": hits, "kills": [asdict(kill) for kill in kills]}
    options.json.write_text(json.dumps(content, indent=1) + "\n")
    return int(n_same < len(kills))


def run_kills(folder: Path, n_kills: int, seed: int) -> list[Kill]:
    """Kill and resume so many collections in the folder; print a line for each."""
    torch.set_num_threads(1)  # a process that forks must have no others
    plan.WAVE_PROMPTS = 20
    job = make_job(folder / "model")
    lengths = measure_phases(job, folder / "whole")
    rng = np.random.default_rng(seed)
    kills: list[Kill] = []
    while len(kills) < n_kills:
        wanted = PHASES[len(kills) % len(PHASES)]
        kill = kill_and_resume(job, folder, wanted, rng.uniform(0, lengths[wanted]))
        if kill is not None:
            kills.append(kill)
            what = f"kill {len(kills):<4}in {kill.phase:<13}after {kill.seconds:6.3f} s, {kill.n_shards:3} shards there"
            print(f"{what}: {'; '.join(kill.differences) or 'identical'}", flush=True)
    return kills


def make_job(model: Path) -> Job:
    """Return what collects into a folder, without a word."""
    vocabulary = make_vocabulary(categories=("hate", "privacy"))
    write_planted(model, vocabulary, Plan(n_layers=4))
    chat = load_chat_model(model, name="planted")
    prompts = planted_prompts(vocabulary, n_safe=12, n_hard=12, n_toxic=12)
    folded = [replace(prompt, fold=FOLDS[number % len(FOLDS)]) for number, prompt in enumerate(prompts)]

    def job(store: Path) -> None:
        with open(os.devnull, "w") as silence, redirect_stdout(silence):  # noqa: PTH123
            collect(chat, folded, Recipe(SITES, response_tokens=4), store, card={"fingerprint": "f"})

    return job


def measure_phases(job: Job, store: Path) -> dict[str, float]:
    """Collect without interruption; return how many seconds each phase took."""
    began: dict[str, float] = {}
    pid, start = _fork(job, store), time.perf_counter()
    while not (store / MANIFEST).exists():
        began.setdefault(phase_of(store), time.perf_counter() - start)
        time.sleep(POLL_SECONDS)
    ends = [*list(began.values())[1:], time.perf_counter() - start]
    assert _wait(pid) == 0
    return {phase: end - begin for (phase, begin), end in zip(began.items(), ends, strict=True)}


def kill_and_resume(job: Job, folder: Path, phase: str, delay: float) -> Kill | None:
    """Kill a collection so many seconds into a phase, and resume it; None if it was done before."""
    store, start = folder / "killed", time.perf_counter()
    try:
        pid = _fork(job, store)
        while PHASES.index(phase_of(store)) < PHASES.index(phase):
            time.sleep(POLL_SECONDS)
        time.sleep(delay)
        seconds = time.perf_counter() - start
        os.kill(pid, signal.SIGKILL)
        _wait(pid)
        if (store / MANIFEST).exists():
            return None
        hit, n_shards = phase_of(store), len(_published(store))
        status = _wait(_fork(job, store))
        found = [f"the resumed run ended with {status}"] if status else differences(folder / "whole", store)
        return Kill(hit, seconds, n_shards, found)
    finally:
        shutil.rmtree(store, ignore_errors=True)


def phase_of(store: Path) -> str:
    """Return the phase that a collection is in, by the files that it has written."""
    if not (store / PLAN).exists():
        return "calibration"
    planned, there = set(read_json(store / PLAN)["shards"]), _published(store)
    if any(CALIBRATION in name for name in planned - there):
        return "calibration"
    if any(unscored_path(store / name).exists() for name in there):
        return "scoring"
    return "main" if planned - there else "finishing"


def _published(store: Path) -> set[str]:
    """Names of the shards that are there, scored or not."""
    return {path.name.removesuffix(".unscored") for path in store.glob("shard-*.h5*") if path.suffix != ".npy"}


def _fork(job: Job, store: Path) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            job(store)
        except BaseException as error:  # noqa: BLE001  a child must not go on with its parent's work
            print(f"child: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def _wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
