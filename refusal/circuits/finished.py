"""Where a finished study stands on disk, from whichever of its folders is named.

A study is named by its model's folder (``outputs/planted``: the latest), by one of ``report/studies`` in it, or by
its circuits' folder (``circuits/<fingerprint>``). Its card there says which autoencoders it was read with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refusal import InputError
from refusal.activations.store import MANIFEST
from refusal.artifacts import CARD, read_json
from refusal.circuits.circuit import Circuit, load_circuit
from refusal.config.suggest import did_you_mean


@dataclass(frozen=True)
class Finished:
    """The folders of one study, and its card."""

    home: Path
    """The model's."""
    report: Path
    """Where its report is, if there is one."""
    circuits: Path
    """With circuits, comparison and attribution."""
    card: Mapping[str, Any]
    """What made the circuits; empty where no card is there."""

    @property
    def saes(self) -> dict[str, Path]:
        """The folders of the autoencoders that the circuits were read with, by site; those that are there."""
        return self._folders(self.card.get("saes") or {})

    @property
    def side_saes(self) -> dict[str, dict[str, Path]]:
        """The same of circuits of safe, hard and toxic prompts, by side; empty where there are none."""
        return {side: self._folders(names) for side, names in (self.card.get("side_saes") or {}).items()}

    def _folders(self, names: Mapping[str, str]) -> dict[str, Path]:
        folders = {site: self.home / "saes" / site / name for site, name in names.items()}
        return {site: folder for site, folder in folders.items() if (folder / "cfg.json").is_file()}

    @property
    def store(self) -> Path | None:
        """A store of the activations that the circuits were found with, if there is one."""
        manifests = sorted(self.home.glob(f"activations/*/{MANIFEST}"))
        own = (path.parent for path in manifests if read_json(path).get("content") == self.card.get("content", ""))
        return next(own, None)


def finished(folder: Path) -> Finished:
    """Return the study at ``folder``.

    Raises:
        InputError: There is no verdict there, or no comparison that belongs to it.
    """
    folder = Path(folder)
    said_in = folder if (folder / "verdict.json").is_file() else folder / "report"
    if not (said_in / "verdict.json").is_file():
        raise InputError(f"there is no report/verdict.json in {folder}; name a model's folder, such as outputs/planted")
    place = said_in.resolve()
    home = place.parents[{"studies": 2, "circuits": 1}.get(place.parent.name, 0)]
    fingerprint = str(read_json(said_in / "verdict.json").get("fingerprint", ""))
    circuits = home / "circuits" / fingerprint
    if not fingerprint or not list(circuits.glob("*_comparison.json")):
        raise InputError(f"the study's comparison is not in {circuits}; run discover.py again")
    report = home / "report" / "studies" / fingerprint if place == circuits else said_in
    card = read_json(circuits / CARD) if (circuits / CARD).is_file() else {}
    return Finished(home, report, circuits, card)


def circuits_of_study(study: Finished, category: str | None = None, side: str = "all") -> list[Circuit]:
    """Return a study's circuits of one side, of all categories or of one.

    Raises:
        InputError: There is none of this category, or a file is damaged.
    """
    paths = sorted(study.circuits.glob("*_circuit.json"))
    circuits = {circuit.category: circuit for circuit in map(load_circuit, paths) if circuit.side == side}
    if category is None:
        return list(circuits.values())
    if category not in circuits:
        raise InputError(f"there is no circuit of '{category}' in {study.circuits}: {did_you_mean(category, circuits)}")
    return [circuits[category]]
