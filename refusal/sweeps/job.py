"""One job of a multirun, as comparisons read it: what it alone was told, and the results that it came to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from refusal.artifacts import read_json
from refusal.sae.history import Trained, middle, read_trained
from refusal.sae.training.scope import SAFE, TOXIC, WHOLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPLITS_OF = {part.name: part.splits for part in (WHOLE, SAFE, TOXIC)}
Row = dict[str, object]


class Comparison(NamedTuple):
    """What a way of comparing jobs finds."""

    rows: list[Row]
    """One for each job, all with the same columns."""
    figure: Figure | None
    name: str
    """Of the figure's file."""


@dataclass(frozen=True)
class Job:
    """A job and its results; what it has not come to is empty."""

    number: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)
    """The options in which the jobs differ."""
    status: str = "done"
    """``done``, ``failed``, or ``started`` if it did not come to its end."""
    saes: Mapping[str, Trained] = field(default_factory=dict)
    """By site, part of the prompts and seed, in words."""
    quality: Mapping[str, Any] = field(default_factory=dict)
    """What ``quality.json`` says of each of them."""
    circuits: Path | None = None
    """The folder of its circuits and their comparison."""
    verdict: Mapping[str, Any] = field(default_factory=dict)

    @property
    def head(self) -> Row:
        """The first columns of its row."""
        return {"job": self.number, **self.settings, "status": self.status}

    @property
    def label(self) -> str:
        """What tells it from the other jobs, as a picture names it."""
        return ", ".join(self.settings.values()) or f"job {self.number}"

    def heldout(self, name: str, split: str | None = None) -> float | None:
        """Return a held-out figure, the median over the autoencoders that are for this split."""
        return middle(one.figure(name, split) for one in self._saes_for(split).values())

    def recovered(self, split: str | None = None) -> float | None:
        """Return the share of the refusal score that is left with an autoencoder in place, the median over them."""
        return middle(self.recovered_with(name, split) for name in self._saes_for(split))

    def recovered_with(self, name: str, split: str | None = None) -> float | None:
        """Return the share of the refusal score that is left with this autoencoder in place."""
        splice = self.quality.get(name, {}).get("splice", {})
        of = splice.get("all", {}) if split is None else splice.get("splits", {}).get(split, {})
        return of.get("recovered_refusal")

    @cached_property
    def faithfulness(self) -> float | None:
        """The median over the categories' circuits."""
        if self.circuits is None:
            return None
        evaluations = [read_json(path).get("evaluation") for path in sorted(self.circuits.glob("*_comparison.json"))]
        return middle(circuit.get("faithfulness") for evaluation in evaluations for circuit in evaluation or ())

    def _saes_for(self, split: str | None) -> dict[str, Trained]:
        """The autoencoders that were trained on prompts of a split, or all of them."""
        return {name: one for name, one in self.saes.items() if split is None or split in SPLITS_OF.get(one.part, ())}


def read_saes(folders: Mapping[str, Path]) -> dict[str, Trained]:
    """Read autoencoders from their folders."""
    return {name: read_trained(Path(folder)) for name, folder in folders.items()}


def read_quality(folder: Path) -> dict[str, Any]:
    """Read what was measured of each autoencoder; nothing where nothing was."""
    path = folder / "quality.json"
    return read_json(path)["saes"] if path.is_file() else {}


def distinct(jobs: Iterable[Job]) -> list[Trained]:
    """Return the autoencoders of all jobs, those that several jobs share once."""
    return list({one.folder: one for job in jobs for one in job.saes.values()}.values())
