"""What a store holds, and whether it still is what was written: shards, norms, labels, checksums.

Read shard by shard and 1,024 rows at a time, so that memory does not grow with the store. What is wrong is collected
rather than raised: a person wants all of it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from refusal import InputError
from refusal.activations.shard import (
    CHUNK_ROWS,
    NUMBER_COLUMNS,
    ROW_COLUMNS,
    TEXT_COLUMNS,
    column,
    dataset,
    is_sound,
    open_shard,
    read_sections,
    read_values,
)
from refusal.activations.store import MANIFEST, SCHEMA_VERSION
from refusal.artifacts import read_json
from refusal.progress import track

PLAN = "plan.json"
UNSCORED = ".unscored"
BINS_AN_OCTAVE, OCTAVES = 256, 32  # of the medians of norms: to 0.2 percent, from 2^-32 to 2^32
Report = Callable[[str, str], None]
"""Takes in what is wrong: the name of a dataset (empty: the file), and what."""


@dataclass(frozen=True)
class Problem:
    """Something that is not as it was written."""

    file: str
    dataset: str
    what: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.file, self.dataset, self.what)))


@dataclass
class Norms:
    """Euclidean lengths of rows, summed up while they come by."""

    n_rows: int = 0
    largest: float = 0.0
    n_bad: int = 0
    """Numbers that are NaN or infinite; rows with one count nowhere else."""
    _total: float = 0.0
    _bins: np.ndarray = field(default_factory=lambda: np.zeros(2 * OCTAVES * BINS_AN_OCTAVE, dtype=np.int64))

    def add(self, values: np.ndarray) -> None:
        """Take in rows, [rows, d_model]."""
        norms = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
        if not np.isfinite(norms).all():
            self.n_bad += int((~np.isfinite(values)).sum())
            norms = norms[np.isfinite(norms)]
        if not len(norms):
            return
        with np.errstate(divide="ignore"):
            place = (np.log2(norms) + OCTAVES) * BINS_AN_OCTAVE
        self._bins += np.bincount(place.clip(0, len(self._bins) - 1).astype(np.int64), minlength=len(self._bins))
        self.n_rows += len(norms)
        self.largest = max(self.largest, float(norms.max()))
        self._total += float(norms.sum())

    @property
    def mean(self) -> float:
        """Mean length; NaN without rows."""
        return self._total / self.n_rows if self.n_rows else float("nan")

    @property
    def median(self) -> float:
        """Median length, to 0.2 percent; NaN without rows."""
        if not self.n_rows:
            return float("nan")
        middle = int(np.searchsorted(np.cumsum(self._bins), (self.n_rows + 1) // 2))
        return 0.0 if middle == 0 else min(self.largest, 2 ** ((middle + 0.5) / BINS_AN_OCTAVE - OCTAVES))


@dataclass
class Labels:
    """What was said of some prompts."""

    n_prompts: int = 0
    n_refused: int = 0
    n_judged_twice: int = 0
    """Prompts with a response and a score."""
    n_agreed: int = 0
    """Those of which both say the same."""


@dataclass(frozen=True)
class ShardFigures:
    """One shard that can be read."""

    file: str
    category: str
    split: str
    fold: str
    n_prompts: int
    n_rows: int
    sections: Mapping[str, int]
    n_bytes: int
    dtype: str
    compression: str
    """Empty: none."""


@dataclass
class Inspection:
    """What a store, or a single shard, holds."""

    path: Path
    n_planned: int = 1
    """Shards that there are to be."""
    is_finished: bool = True
    """Whether it has a manifest (or is a single shard)."""
    has_values: bool = True
    """Whether activations were read, and checksums compared."""
    shards: list[ShardFigures] = field(default_factory=list)
    norms: dict[str, tuple[Norms, Norms]] = field(default_factory=dict)
    """Of each site: rows at last positions, other rows."""
    labels: dict[tuple[str, str], Labels] = field(default_factory=dict)
    """By category and split, of prompts that were judged."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Ids of prompts that could not be run, and why."""
    n_truncated: int = 0
    """Prompts that lost the end of their instruction."""
    problems: list[Problem] = field(default_factory=list)

    @property
    def agreement(self) -> float | None:
        """Share of prompts with a response and a score of which both say the same."""
        judged = sum(labels.n_judged_twice for labels in self.labels.values())
        return sum(labels.n_agreed for labels in self.labels.values()) / judged if judged else None


def find_stores(path: Path) -> list[Path]:
    """Return what there is to look into: a shard's file, a store, or every store of a model's outputs folder.

    Raises:
        InputError: There is none.
    """
    if path.is_file() or _is_store(path):
        return [path]
    found = [folder for folder in (*sorted(path.glob("*")), *sorted(path.glob("activations/*"))) if _is_store(folder)]
    if not found:
        raise InputError(
            f"there are no activations in {path}: name a store, a shard (.h5), or a model's outputs folder"
        )
    return found


def inspect_store(path: Path, *, values: bool = True) -> Inspection:
    """Look into a store, finished or not, or into one shard.

    Args:
        path: The store's folder, or a shard's file.
        values: Whether to read the activations and compare every checksum; without, only what the files are made of.

    Raises:
        InputError: It is no store, or of another version.
    """
    path = Path(path)
    if path.is_file():
        inspection = Inspection(path, has_values=values)
        _inspect_shard(inspection, path, path.name, {})
        return inspection
    expected, is_finished = _expected(path)
    inspection = Inspection(path, len(expected), is_finished, values)
    for name in track(expected, "inspecting"):
        file = path / name
        if not file.exists() and not is_finished:
            file = file.with_name(name + UNSCORED)
            if not file.exists():
                continue
        _inspect_shard(inspection, file, name, expected[name])
    return inspection


def _is_store(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() or (folder / PLAN).is_file()


def _expected(folder: Path) -> tuple[dict[str, dict[str, Any]], bool]:
    """Return what manifest or plan say of each shard, by its file, and whether it was the manifest."""
    if not (folder / MANIFEST).is_file():
        plan = read_json(folder / PLAN)
        site_names = {"sites": plan["sites"], "dtype": plan["dtype"]}
        return {file: {**site_names, "n_given": len(ids)} for file, ids in plan["shards"].items()}, False
    manifest = read_json(folder / MANIFEST)
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise InputError(f"{folder / MANIFEST} is of another version; rebuild it with force=true")
    common = {name: manifest[name] for name in ("sites", "d_model", "dtype") if name in manifest}
    return {shard["file"]: {**shard, **common} for shard in manifest["shards"]}, True


def _inspect_shard(inspection: Inspection, path: Path, name: str, expected: Mapping[str, Any]) -> None:
    """Add one shard to the inspection."""

    def report(where: str, what: str) -> None:
        inspection.problems.append(Problem(name, where, what))

    if not path.is_file():
        report("", "is missing")
        return
    try:
        with open_shard(path) as file:
            shard = _structure(file, path, name, report)
            if shard is None:
                return
            _compare(shard, file, expected, report)
            inspection.shards.append(shard)
            _add_labels(inspection, file, path, report)
            if inspection.has_values:
                _check_sums(file, report)
                _add_norms(inspection, file, shard, report)
    except InputError as error:  # the file cannot be opened; a cause in a dataset has been reported
        report("", f"is damaged: {_first_line(error.__cause__ or error)}")


def _structure(file: h5py.File, path: Path, name: str, report: Report) -> ShardFigures | None:
    """Return a shard's figures; None where its tables cannot be read."""
    with _reported(report, "prompts and rows"):
        columns = [dataset(file, f"prompts/{name}") for name in (*TEXT_COLUMNS, *NUMBER_COLUMNS)]
        n_prompts = _one_length(columns, report)
        n_rows = _one_length([dataset(file, f"rows/{name}") for name in ROW_COLUMNS], report)
        sections = read_sections(file)
        if sum(sections.values()) != n_rows:
            report("rows", f"the sections have {sum(sections.values())} rows, the table {n_rows}")
        category, split, fold = ([*column(file, f"prompts/{name}"), ""][0] for name in ("category", "split", "fold"))
        stored = [dataset(file, f"activations/{site}") for site in _sites(file)[:1]]
        dtype, compression = (
            "".join(str(x.attrs["dtype"]) for x in stored),
            "".join(x.compression or "" for x in stored),
        )
        size = path.stat().st_size
        return ShardFigures(name, category, split, fold, n_prompts, n_rows, sections, size, dtype, compression)
    return None


def _one_length(columns: list[h5py.Dataset], report: Report) -> int:
    """Return how long the columns of a table are, and report those that differ."""
    for found in columns:
        if len(found) != len(columns[0]):
            report(str(found.name).strip("/"), f"has {len(found)} entries, {columns[0].name} {len(columns[0])}")
    return len(columns[0])


def _compare(shard: ShardFigures, file: h5py.File, expected: Mapping[str, Any], report: Report) -> None:
    """Report where a shard is not what manifest or plan say."""
    said = {"n_prompts": shard.n_prompts, "n_rows": shard.n_rows, "sections": dict(shard.sections)}
    said |= {"category": shard.category, "split": shard.split, "fold": shard.fold, "bytes": shard.n_bytes}
    said |= {"dtype": shard.dtype} if shard.dtype else {}
    for key, value in said.items():
        if key in expected and value != expected[key] and (shard.n_prompts or key in ("n_prompts", "n_rows")):
            report("", f"{key} is {value}, and the manifest says {expected[key]}")
    with _reported(report, "failed/id"):
        n_given = shard.n_prompts + len(dataset(file, "failed/id"))
        if n_given != expected.get("n_given", n_given):
            report("", f"{n_given} prompts, and the plan has {expected['n_given']}")
    found = _sites(file)
    for site in expected.get("sites", ()):
        if site not in found:
            report(f"activations/{site}", "is missing")
    for site in found:
        with _reported(report, f"activations/{site}"):
            values = dataset(file, f"activations/{site}")
            wanted = (shard.n_rows, expected.get("d_model", values.shape[-1]))
            if values.shape != wanted:
                report(f"activations/{site}", f"has shape {values.shape}, and not {wanted}")


def _add_labels(inspection: Inspection, file: h5py.File, path: Path, report: Report) -> None:
    """Add a shard's labels, but for one that still waits for its scores, and its prompts that failed."""
    with _reported(report, "failed"):
        inspection.failed += zip(column(file, "failed/id").tolist(), column(file, "failed/why").tolist(), strict=True)
    with _reported(report, "prompts"):
        names = ("category", "split", "refused", "by_phrases", "by_score", "refusal_score", "first_token", "truncated")
        table = {name: column(file, f"prompts/{name}") for name in names}
        inspection.n_truncated += int((table["truncated"] > 0).sum())
        has_response, has_score = table["first_token"] >= 0, np.isfinite(table["refusal_score"])
        judged = (has_response | has_score) & (not path.name.endswith(UNSCORED))
        agreed = table["by_phrases"] == table["by_score"]
        for i in np.flatnonzero(judged):
            labels = inspection.labels.setdefault((str(table["category"][i]), str(table["split"][i])), Labels())
            labels.n_prompts += 1
            labels.n_refused += int(table["refused"][i])
            labels.n_judged_twice += int(has_response[i] & has_score[i])
            labels.n_agreed += int(has_response[i] & has_score[i] & agreed[i])


def _check_sums(file: h5py.File, report: Report) -> None:
    """Report every dataset whose values are not those that were written."""
    names: list[str] = []
    file.visititems(lambda name, found: names.append(name) if isinstance(found, h5py.Dataset) else None)
    for name in names:
        with _reported(report, name):
            if "sha256" not in dataset(file, name).attrs:
                report(name, "has no checksum")
            elif not is_sound(dataset(file, name)):
                report(name, "the checksum differs")


def _add_norms(inspection: Inspection, file: h5py.File, shard: ShardFigures, report: Report) -> None:
    """Add the norms of a shard's rows, those at last positions (which come first) apart."""
    n_last = shard.sections.get("last", 0)
    for site in _sites(file):
        last, others = inspection.norms.setdefault(site, (Norms(), Norms()))
        with _reported(report, f"activations/{site}"):
            for start in range(0, shard.n_rows, CHUNK_ROWS):
                values = read_values(file, f"activations/{site}", slice(start, start + CHUNK_ROWS))
                last.add(values[: max(0, n_last - start)])
                others.add(values[max(0, n_last - start) :])


def _sites(file: h5py.File) -> list[str]:
    """Return the names of the sites that have activations."""
    found = file.get("activations")
    return list(found) if isinstance(found, h5py.Group) else []


@contextmanager
def _reported(report: Report, where: str) -> Iterator[None]:
    """Report what HDF5 raises of damaged data (it has no error of its own), and go on."""
    try:
        yield
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        report(where, f"cannot be read: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
