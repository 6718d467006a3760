"""A finished study, read from disk: verdict, comparison, circuits, statistics of the data, labels, the SAEs' health."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refusal import InputError
from refusal.activations.store import is_complete
from refusal.artifacts import CARD, read_json
from refusal.circuits.circuit import Circuit, load_circuit
from refusal.circuits.features import FEATURES
from refusal.circuits.finished import finished
from refusal.report.labels import Labels, read_labels


@dataclass(frozen=True)
class Folders:
    """Where a study lies: plain paths, of which only ``report`` and ``circuits`` must exist."""

    report: Path
    circuits: Path
    data_analysis: Path | None = None
    saes: tuple[Path, ...] = ()
    store: Path | None = None
    quality: Path | None = None


@dataclass(frozen=True)
class Study:
    """What the files say; ``saes`` maps a site to (cfg.json, held-out figures: ``all`` positions, ``last`` one)."""

    verdict: Mapping[str, Any]
    comparison: Mapping[str, Any]
    circuits: tuple[Circuit, ...]
    statistics: Mapping[str, Any] | None
    saes: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]
    card: Mapping[str, Any]
    labels: Labels | None = None
    """What was called a refusal; None where the activations are not there."""
    quality: Mapping[str, Any] | None = None
    """``quality.json``: how good the SAEs are; None where they were not measured."""
    features: Mapping[str, Any] | None = None
    """``features.json``: what the circuits' nodes are; None in a study from before they were described."""

    @property
    def direct(self) -> Mapping[str, Any]:
        """The headline reading of causal transfer, empty where there is none."""
        return (self.comparison.get("transfer") or {}).get("direct") or {}


def find(folder: Path) -> Folders:
    """Return the folders of the study at ``folder``; see :func:`refusal.circuits.finished.finished`.

    Raises:
        InputError: There is no verdict there, or no comparison that belongs to it.
    """
    study = finished(folder)
    home, card = study.home, study.card
    data_analysis = home / "data_analysis"
    return Folders(
        study.report,
        study.circuits,
        data_analysis if data_analysis.is_dir() else None,
        tuple(study.saes.values()),
        study.store,
        _quality_of(home, card),
    )


def _quality_of(home: Path, card: Mapping[str, Any]) -> Path | None:
    """The newest measurement of the SAEs that the circuits were found with, if there is one."""
    own = set((card.get("saes") or {}).values())
    cards = [path for path in home.glob(f"quality/*/{CARD}") if own and own <= set(read_json(path)["saes"].values())]
    return max(cards, key=lambda path: path.stat().st_mtime).parent if cards else None


def read_study(folders: Folders) -> Study:
    """Read a study's files.

    Raises:
        InputError: One of them is missing or damaged.
    """
    comparisons = sorted(folders.circuits.glob("*_comparison.json"))
    if not comparisons:
        raise InputError(f"there is no comparison in {folders.circuits}; run discover.py again")
    statistics = None
    if folders.data_analysis and (folders.data_analysis / "data_split_statistics.json").is_file():
        statistics = read_json(folders.data_analysis / "data_split_statistics.json")
    card, features = folders.circuits / CARD, folders.circuits / FEATURES
    return Study(
        verdict=read_json(folders.report / "verdict.json"),
        comparison=read_json(comparisons[0]),
        circuits=tuple(load_circuit(path) for path in sorted(folders.circuits.glob("*_circuit.json"))),
        statistics=statistics,
        saes={folder.parent.name: _sae(folder) for folder in folders.saes},
        card=read_json(card) if card.is_file() else {},
        labels=read_labels(folders.store) if folders.store and is_complete(folders.store) else None,
        quality=read_json(folders.quality / "quality.json") if folders.quality else None,
        features=read_json(features) if features.is_file() else None,
    )


def _sae(folder: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """An SAE's configuration and its figures on held-out rows."""
    history = read_json(folder / "history.json") if (folder / "history.json").is_file() else {}
    return read_json(folder / "cfg.json"), history.get("heldout") or {}
