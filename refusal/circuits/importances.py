"""How much each feature of a site matters on each prompt, kept sparse, so that a category is a sum over rows.

The file ``attribution.h5``: attributes ``schema_version``, ``method``, ``baseline`` and ``positions``; the
dataset ``prompts`` (ids, in the order of the rows); for each site a group ``sites/<site>`` with the arrays
``data``, ``indices``, ``indptr`` of a CSR matrix [n_prompts, d_sae], ``error`` [n_prompts], and the attribute
``d_sae``.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from scipy import sparse

from refusal import InputError
from refusal.artifacts import write_atomic
from refusal.models.sites import Site, parse_site

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Importances:
    """What the nodes of one site contribute on each prompt (nats; correlations for ``stats``)."""

    site: str
    values: sparse.csr_array
    """Features, float32 [n_prompts, d_sae]."""
    error: np.ndarray
    """The part of the activations that the SAE does not reconstruct, float32 [n_prompts]."""

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return self.values.shape[1]  # pyright: ignore[reportOptionalSubscript]  scipy's shape has no type

    @property
    def total(self) -> np.ndarray:
        """Features and error together, [n_prompts]: what the method attributes to the whole site."""
        return np.asarray(self.values.sum(axis=1)).ravel() + self.error

    def of(self, rows: np.ndarray) -> Importances:
        """Return the same on some of the prompts."""
        return Importances(self.site, sparse.csr_array(self.values[rows]), self.error[rows])

    def mean(self, rows: np.ndarray) -> np.ndarray:
        """Return the mean over these prompts, float64 [d_sae + 1]; the last entry is the error node."""
        chosen = sparse.csr_array(self.values[rows])
        features = np.asarray(chosen.sum(axis=0, dtype=np.float64)).ravel() / len(rows)
        return np.append(features, self.error[rows].mean(dtype=np.float64))


@dataclass(frozen=True)
class Attribution:
    """The content of one ``attribution.h5``."""

    importances: dict[Site, Importances]
    prompt_ids: list[str]
    """One for each row."""
    method: str
    baseline: str
    positions: str


def save_attribution(path: Path, attribution: Attribution) -> None:
    """Write ``attribution.h5``, whole or not at all.

    Raises:
        InputError: The disk refuses to write.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["schema_version"] = SCHEMA_VERSION
        for name in ("method", "baseline", "positions"):
            file.attrs[name] = getattr(attribution, name)
        file.create_dataset("prompts", data=attribution.prompt_ids, dtype=h5py.string_dtype())
        for site, importances in attribution.importances.items():
            group = file.create_group(f"sites/{site}")
            group.attrs["d_sae"] = importances.d_sae
            for name in ("data", "indices", "indptr"):
                group.create_dataset(name, data=getattr(importances.values, name))
            group.create_dataset("error", data=importances.error)
    write_atomic(path, buffer.getvalue())


def load_attribution(path: Path) -> Attribution:
    """Read ``attribution.h5``.

    Raises:
        InputError: The file is absent, damaged, or of another version.
    """
    try:
        with h5py.File(path, "r") as file:
            if file.attrs["schema_version"] != SCHEMA_VERSION:
                raise InputError(f"{path} was written by another version; rebuild it with force=true")
            prompt_ids = [text.decode() for text in _array(file, "prompts")]
            sites = sorted(parse_site(str(name)) for name in _group(file, "sites"))
            importances = {site: _read(file, site, len(prompt_ids)) for site in sites}
            named = {name: str(file.attrs[name]) for name in ("method", "baseline", "positions")}
    except FileNotFoundError as error:
        raise InputError(f"there is no {path}") from error
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} is damaged; delete it, or rebuild it with force=true") from error
    return Attribution(importances, prompt_ids, **named)


def from_rows(site: Site, values: Sequence[np.ndarray], errors: Sequence[np.ndarray]) -> Importances:
    """Join dense pieces [batch, d_sae] and [batch] into one sparse whole."""
    stacked = sparse.vstack([sparse.csr_array(piece) for piece in values], format="csr")
    return Importances(str(site), sparse.csr_array(stacked), np.concatenate(errors))


def mean_by_site(importances: Mapping[Site, Importances], rows: np.ndarray) -> dict[Site, np.ndarray]:
    """Return each site's mean over these prompts, [d_sae + 1], the error node last."""
    return {site: of_site.mean(rows) for site, of_site in importances.items()}


def _read(file: h5py.File, site: Site, n_prompts: int) -> Importances:
    group = _group(file, f"sites/{site}")
    parts = tuple(_array(group, name) for name in ("data", "indices", "indptr"))
    values = sparse.csr_array(parts, shape=(n_prompts, np.asarray(group.attrs["d_sae"]).item()))
    return Importances(str(site), values, _array(group, "error"))


def _group(parent: h5py.Group, name: str) -> h5py.Group:
    found = parent[name]
    assert isinstance(found, h5py.Group)
    return found


def _array(parent: h5py.Group, name: str) -> np.ndarray:
    found = parent[name]
    assert isinstance(found, h5py.Dataset)
    return found[:]
