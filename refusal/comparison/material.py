"""What circuits are found in and compared on: the prompts outside calibration, as arrays, and each category's circuit.

Folds are halves: circuits and directions come from one, and are judged on the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse

from refusal.activations.store import ActivationStore
from refusal.circuits.circuit import Circuit
from refusal.circuits.discover import Key, circuits_of
from refusal.circuits.experiment import Experiment
from refusal.circuits.importances import Importances
from refusal.comparison.contrast import Contrast
from refusal.models.chat import ChatModel
from refusal.models.sites import Site

if TYPE_CHECKING:
    import pandas as pd

Attribute = Callable[[Experiment], dict[Site, Importances]]


@dataclass(frozen=True)
class Settings:
    """How circuits are found and compared."""

    method: str
    """Name of the attribution method."""
    node_threshold: float
    edge_threshold: float
    top_n_per_layer: int | None
    separate_safe_toxic: bool
    positions: str
    baseline: str
    min_per_category: int
    permutations: int
    bootstrap: int
    seed: int
    batch_size: int = 128


@dataclass(frozen=True)
class Material:
    """What everything below works on: the prompts outside calibration, those of the training fold first."""

    chat: ChatModel
    tokens: Sequence[int]
    table: pd.DataFrame
    contrast: Contrast
    saes: Mapping[Site, Any]
    settings: Settings

    @property
    def voting(self) -> list[int]:
        """Categories with enough refused and complied prompts."""
        enough = np.minimum(self.contrast.count(refused=True), self.contrast.count(refused=False))
        return np.flatnonzero((enough >= self.settings.min_per_category) & self.contrast.measurable).tolist()

    def experiment(self, half: int, baseline: Any) -> Experiment:
        """Return the prompts of the training (0) or held-out (1) fold, ready for attribution."""
        rows = np.flatnonzero(self.contrast.half == half)
        return Experiment(
            chat=self.chat,
            encoded=[self.contrast.prompts[row] for row in rows.tolist()],
            categories=[self.contrast.categories[int(self.contrast.category[row])] for row in rows],
            splits=self.table["split"].to_numpy()[rows].tolist(),
            refused=self.contrast.refused[rows],
            saes=self.saes,
            refusal_tokens=self.tokens,
            positions=self.settings.positions,
            baseline=baseline,
            batch_size=self.settings.batch_size,
        )

    @property
    def effect(self) -> float:
        """Mean m of refused minus complied prompts over the voting categories, nats; NaN without any."""
        return float(self.contrast.effect()[self.voting].mean()) if self.voting else float("nan")

    def generator(self, purpose: int) -> np.random.Generator:
        """Return random numbers of their own for each purpose."""
        return np.random.default_rng([self.settings.seed, purpose])


@dataclass(frozen=True)
class Found:
    """Circuits, and what they were found with."""

    train: Experiment
    heldout: Experiment
    importances: Mapping[Site, Importances]
    """Of all prompts of the material."""
    circuits: Mapping[str, Circuit]
    """By category."""

    def features(self, site: Site) -> np.ndarray:
        """Return f at the last position of all prompts, [n_prompts, d_sae]."""
        parts = [
            experiment.split(site, rows).f[:, -1].float().cpu().numpy()
            for experiment in (self.train, self.heldout)
            for rows in experiment.chunks()
        ]
        return np.concatenate(parts)


def directions_of(sae: Any) -> np.ndarray:
    """Return what a unit of each feature adds, float32 [d_sae, d_model]."""
    with torch.no_grad():
        return sae.directions.float().cpu().numpy()


def gather(chat: ChatModel, store: ActivationStore, saes: Mapping[Site, Any], settings: Settings) -> Material:
    """Return the prompts outside calibration with their labels and component writes, as arrays."""
    table = store.prompts()
    fold, category = table["fold"].to_numpy(), table["category"].to_numpy()
    usable = store.evidence() & np.isin(category, category[fold == "train"])
    chosen = np.concatenate([np.flatnonzero(usable & (fold == name)) for name in ("train", "heldout")])
    writes = store.writes()[chosen]
    table = table.iloc[chosen].reset_index(drop=True)
    categories = sorted(set(category[chosen]))
    contrast = Contrast(
        categories=categories,
        prompts=[chat.encode(text, store.max_prompt_tokens) for text in table["text"]],
        category=np.searchsorted(categories, table["category"].to_numpy(dtype=str)),
        refused=table["refused"].to_numpy(dtype=bool),
        half=(table["fold"] == "heldout").to_numpy(dtype=int),
        score=table["refusal_score"].to_numpy(dtype=float),
        writes=writes,
    )
    return Material(chat, store.refusal_tokens, table, contrast, saes, settings)


def find_circuits(material: Material, attribute: Attribute, *, model: str, fingerprint: str) -> Found:
    """Attribute the score on all prompts, and choose each category's circuit on those of the training fold."""
    settings = material.settings
    train = material.experiment(0, settings.baseline)
    heldout = material.experiment(1, train.reference)
    of_train = attribute(train)
    circuits = circuits_with(settings, train, of_train, model=model, fingerprint=fingerprint)
    by_category = {category: circuit for (category, _), circuit in circuits.items()}
    return Found(train, heldout, joined(of_train, attribute(heldout)), by_category)


def circuits_with(
    settings: Settings,
    experiment: Experiment,
    importances: Mapping[Site, Importances],
    *,
    model: str,
    fingerprint: str,
    sides: Sequence[str] = ("all",),
) -> dict[Key, Circuit]:
    """Choose circuits as the settings say; see :func:`circuits_of`."""
    return circuits_of(
        experiment,
        importances,
        model=model,
        method=settings.method,
        fingerprint=fingerprint,
        node_threshold=settings.node_threshold,
        edge_threshold=settings.edge_threshold,
        top_n_per_layer=settings.top_n_per_layer,
        sides=sides,
    )


def joined(first: Mapping[Site, Importances], second: Mapping[Site, Importances]) -> dict[Site, Importances]:
    """Put the importances of two groups of prompts one after another."""
    joined = {}
    for site, one in first.items():
        values = sparse.csr_array(sparse.vstack([one.values, second[site].values], format="csr"))
        joined[site] = replace(one, values=values, error=np.concatenate([one.error, second[site].error]))
    return joined
