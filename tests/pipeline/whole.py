"""Whole commands as a user gives them: a process of their own, in a folder that is empty but for what they made."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from refusal.models.planted import TEMPLATE, write_planted
from refusal.models.planted_plan import Plan
from refusal.prompts.orbench import FILES
from refusal.prompts.planted import Vocabulary
from refusal.prompts.prompt import Prompt
from tests.commands import ROOT
from tests.pipeline import warm
from tests.pipeline.warm import Started

QUICK = ("sae.epochs=1", "circuits.permutations=200", "circuits.bootstrap=100", "quality.max_prompts=18", "logger=none")
PLANTED = (
    "model.n_layers=4",
    *("data.n_safe=12", "data.n_hard=8", "data.n_toxic=12", "data.categories=[hate,privacy,violence]"),
    "circuits.min_per_category=3",
)
SITES = ("mlp_1", "mlp_2", "residuals_2")
SMALL = (*PLANTED, *QUICK, f"layers.names=[{','.join(SITES)}]")
ENVIRONMENT = {**os.environ, **warm.ENVIRONMENT}


class Done(NamedTuple):
    """What a command left."""

    status: int
    out: str
    err: str

    @property
    def states(self) -> list[tuple[str, str]]:
        """(stage, built | resumed | found) of each line, in order."""
        states = [tuple(line.split()[:2]) for line in self.out.splitlines()]
        return [
            (state[0], state[1]) for state in states if len(state) == 2 and state[1] in ("built", "found", "resumed")
        ]

    @property
    def verdict(self) -> str:
        """The first word of the last line."""
        return self.out.splitlines()[-1].partition(":")[0]


def python(folder: Path, script: str, *arguments: str, flags: Sequence[str] = ()) -> Done:
    """Run ``python <script>.py ...`` in the folder, as a shell would: nothing is imported already."""
    line = [sys.executable, *flags, str(ROOT / f"{script}.py"), *arguments]
    done = subprocess.run(line, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=500, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def start(folder: Path, script: str, *arguments: str, before: Callable[[], object] | None = None) -> Started:
    """Start the same command, forked; ``before`` is called in the new process first of all."""
    return warm.start(folder, ROOT / f"{script}.py", arguments, before)


def finish(process: Started) -> Done:
    """Wait for a command that was started."""
    return Done(process.wait(), *process.said)


def command(folder: Path, script: str, *arguments: str) -> Done:
    """Run a command to its end."""
    return finish(start(folder, script, *arguments))


def succeed(folder: Path, script: str, *arguments: str) -> Done:
    """Run a command that has to succeed."""
    done = command(folder, script, *arguments)
    assert done.status == 0, f"{done.out}\n{done.err}"
    return done


def store(folder: Path) -> Path:
    """Return the only store of the planted model."""
    (found,) = (folder / "outputs" / "planted" / "activations").iterdir()
    return found


def verdict(folder: Path, model: str = "planted") -> dict[str, Any]:
    """Return what ``verdict.json`` of the latest report says."""
    return json.loads((folder / "outputs" / model / "report" / "verdict.json").read_text())


def leftovers(folder: Path) -> list[Path]:
    """Return what is half-written: temporary files and folders, and results without a card."""
    outputs = folder / "outputs"
    temporary = [path for path in outputs.rglob("*") if path.name.endswith((".tmp", ".unscored", ".npy"))]
    homes = [path for kind in ("circuits", "saes/*", "model") for path in outputs.glob(f"*/{kind}/*/")]
    cardless = [path for path in homes if path.is_dir() and not (path / "card.json").is_file()]
    return [*temporary, *cardless]


def write_model(folder: Path, vocabulary: Vocabulary, plan: Plan, template: str = TEMPLATE) -> dict[str, Any]:
    """Write a planted model as anyone's model folder; return the truth about it."""
    write_planted(folder, vocabulary, plan, template)
    return json.loads((folder / "truth.json").read_text())


def write_csvs(folder: Path, prompts: Sequence[Prompt], *, mark: str = "", line_break: str = "\n") -> Path:
    """Write prompts as the three files of OR-Bench, with a byte-order mark if asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, name in FILES.items():
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator=line_break)
        writer.writerow(("prompt", "category"))
        writer.writerows((prompt.text, prompt.category) for prompt in prompts if prompt.split == split)
        (folder / name).write_text(mark + text.getvalue(), encoding="utf-8", newline="")
    return folder
