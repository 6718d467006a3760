"""What a study measured with its model, and keeps on disk: enough to compare it again without the model.

Beside the circuits' files, in their folder:

- ``attribution.h5``: importances of all prompts (:mod:`refusal.circuits.importances`);
- ``attribution_safe.h5``, ``_hard`` and ``_toxic``: the same of the prompts on a side, against the baseline zero, where
  circuits of sides were asked for;
- ``transfer.h5``: the attributes ``schema_version``, ``n_layers`` and how it was compared (``node_threshold``,
  ``permutations``, ``bootstrap``, ``seed``); ``categories`` and ``voting`` (names), ``effect`` (by category, nats);
  ``prompts/category`` (index) and ``prompts/refused``, in the order of ``attribution.h5``; and, where transfer was
  measured, ``tested`` (the prompts of the columns below), ``direct`` with a dataset for each field of
  :class:`~refusal.comparison.transfer.Direct`, its falls in ``direct/drops/<number>`` and ``direct/halved``, and
  ``circuit`` and ``window``: each with ``start``, ``values`` [n_categories knocked out, n_tested] (nats), and
  ``category`` and ``part`` of its columns.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from refusal import InputError
from refusal.activations.shard import column, dataset
from refusal.artifacts import write_atomic
from refusal.circuits.circuit import load_circuit
from refusal.circuits.importances import Attribution, load_attribution, save_attribution
from refusal.comparison.transfer import Direct, Drops
from refusal.models.sites import Site

SCHEMA_VERSION = 2
FALLS = ("drops", "halved")
"""The fields of ``Direct`` that are groups of datasets."""
ATTRIBUTION, TRANSFER = "attribution.h5", "transfer.h5"


@dataclass(frozen=True)
class Comparing:
    """How what was measured is compared; all of it can be chosen anew without a model."""

    node_threshold: float
    permutations: int
    bootstrap: int
    seed: int


@dataclass(frozen=True)
class Transfer:
    """The falls of the refusal score under knock-outs, by reading."""

    direct: Direct
    tested: np.ndarray
    """The prompts that ``direct`` was tested on: the columns of its drops, int [n_tested]."""
    circuit: Drops | None
    window: Drops | None


@dataclass(frozen=True)
class Side:
    """Safe, hard (refused ones alone) or toxic prompts, and what refuses them against the baseline zero."""

    attribution: Attribution
    """Of the prompts on the side."""
    rows: np.ndarray
    """Which of the study's prompts they are, int [n_on_side]."""
    directions: Mapping[Site, np.ndarray]
    """As of :class:`Measured`; sides may have autoencoders of their own."""
    has_circuit: np.ndarray
    """Whether each category has a circuit, bool [n_categories]."""


@dataclass(frozen=True)
class Measured:
    """One study, ready to be compared."""

    categories: list[str]
    category: np.ndarray
    """Index into ``categories``, int [n_prompts]."""
    refused: np.ndarray
    """bool [n_prompts]"""
    effect: np.ndarray
    """Mean m of refused minus complied prompts of each category, nats, NaN where undefined, [n_categories]."""
    voting: list[int]
    n_layers: int
    how: Comparing
    """How the study itself was compared."""
    attribution: Attribution
    directions: Mapping[Site, np.ndarray]
    """What a unit of each feature adds, float32 [d_sae, d_model]."""
    transfer: Transfer | None
    sides: Mapping[str, Side]
    """By name; empty where circuits of sides were not asked for."""

    @property
    def mean_effect(self) -> float:
        """Mean effect over the voting categories, nats; NaN without any."""
        return float(self.effect[self.voting].mean()) if self.voting else float("nan")


def save_measured(folder: Path, measured: Measured) -> None:
    """Write the files above, all but the circuits'.

    Raises:
        InputError: The disk refuses to write.
    """
    save_attribution(folder / ATTRIBUTION, measured.attribution)
    for name, side in measured.sides.items():
        save_attribution(_side_path(folder, name), side.attribution)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs.update({"schema_version": SCHEMA_VERSION, "n_layers": measured.n_layers, **asdict(measured.how)})
        names = {"categories": measured.categories, "voting": [measured.categories[c] for c in measured.voting]}
        for name, texts in names.items():
            file.create_dataset(name, data=texts, dtype=h5py.string_dtype())
        for name in ("category", "refused"):
            file[f"prompts/{name}"] = getattr(measured, name)
        file["effect"] = measured.effect
        if measured.transfer is not None:
            _write_transfer(file, measured.transfer)
    write_atomic(folder / TRANSFER, buffer.getvalue())


def load_measured(
    folder: Path, directions: Mapping[Site, np.ndarray], side_directions: Mapping[str, Mapping[Site, np.ndarray]]
) -> Measured:
    """Read what a study measured from its circuits' folder.

    Args:
        folder: Where it is.
        directions: Of its autoencoders.
        side_directions: Of those of each side, where circuits of sides were asked for.

    Raises:
        InputError: A file is absent, damaged, or of another version.
    """
    path = folder / TRANSFER
    attribution = load_attribution(folder / ATTRIBUTION)
    try:
        with h5py.File(path, "r") as file:
            if file.attrs["schema_version"] != SCHEMA_VERSION:
                raise InputError(f"{path} was written by another version; rebuild it with force=true")
            categories = column(file, "categories").tolist()
            return Measured(
                categories=categories,
                category=column(file, "prompts/category"),
                refused=column(file, "prompts/refused"),
                effect=column(file, "effect"),
                voting=[categories.index(name) for name in column(file, "voting")],
                n_layers=_attribute(file, "n_layers"),
                how=Comparing(**{field.name: _attribute(file, field.name) for field in fields(Comparing)}),
                attribution=attribution,
                directions=directions,
                transfer=_read_transfer(file) if "tested" in file else None,
                sides=_read_sides(folder, attribution.prompt_ids, categories, side_directions),
            )
    except FileNotFoundError as error:
        raise InputError(f"there is no {path}; rebuild it with force=true") from error
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged; delete it, or rebuild it with force=true") from error


def _write_transfer(file: h5py.File, transfer: Transfer) -> None:
    direct = transfer.direct
    file["tested"] = transfer.tested
    for field in fields(direct):
        if field.name not in FALLS:
            file[f"direct/{field.name}"] = getattr(direct, field.name)
    drops = {f"direct/drops/{number:02d}": one for number, one in enumerate(direct.drops)}
    drops["direct/halved"] = direct.halved
    for name, one in {**drops, "circuit": transfer.circuit, "window": transfer.window}.items():
        if one is not None:
            for field in fields(one):
                file[f"{name}/{field.name}"] = getattr(one, field.name)


def _read_transfer(file: h5py.File) -> Transfer:
    drops = file["direct/drops"]
    assert isinstance(drops, h5py.Group)
    by_start = [_read_drops(file, f"direct/drops/{number}") for number in drops]
    facts = {field.name: _value(file, f"direct/{field.name}") for field in fields(Direct) if field.name not in FALLS}
    return Transfer(
        direct=Direct(drops=by_start, halved=_read_drops(file, "direct/halved"), **facts),
        tested=column(file, "tested"),
        circuit=_read_drops(file, "circuit") if "circuit" in file else None,
        window=_read_drops(file, "window") if "window" in file else None,
    )


def _read_drops(file: h5py.File, name: str) -> Drops:
    return Drops(**{field.name: _value(file, f"{name}/{field.name}") for field in fields(Drops)})


def _attribute(file: h5py.File, name: str) -> Any:
    return np.asarray(file.attrs[name]).item()


def _value(file: h5py.File, name: str) -> Any:
    """Return an array, or a number of Python's own."""
    found = np.asarray(dataset(file, name)[()])
    return found if found.ndim else found.item()


def _read_sides(
    folder: Path,
    ids: Sequence[str],
    categories: Sequence[str],
    directions: Mapping[str, Mapping[Site, np.ndarray]],
) -> dict[str, Side]:
    """Return the sides; which categories have a circuit on each is said by the circuits' files."""
    circuits = [load_circuit(path) for path in sorted(folder.glob("*_circuit.json"))] if directions else []
    has_circuit = {circuit.key: circuit.has_circuit for circuit in circuits}
    row = {prompt: number for number, prompt in enumerate(ids)}
    sides = {}
    for name, of_side in directions.items():
        attribution = load_attribution(_side_path(folder, name))
        sides[name] = Side(
            attribution=attribution,
            rows=np.array([row[prompt] for prompt in attribution.prompt_ids], dtype=int),
            directions=of_side,
            has_circuit=np.array([has_circuit[category, name] for category in categories]),
        )
    return sides


def _side_path(folder: Path, side: str) -> Path:
    return folder / f"attribution_{side}.h5"
