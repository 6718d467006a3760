"""Gathers one shard's prompts and rows while batches come in, in any order; then writes the file.

Rows wait in memory, and beyond a bound in unnamed temporary files beside the shard, one a site. When the file is
written, each row is copied once, to its final place; what is held then is one site, whatever their number.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from refusal.activations.encoding import DTYPES
from refusal.activations.shard import CHUNK_ROWS, NUMBER_COLUMNS, ROW_COLUMNS, SECTIONS, TEXT_COLUMNS, write_shard
from refusal.artifacts import write_atomic
from refusal.models.sites import Site


class Part(NamedTuple):
    """Some prompts of a shard, as they came out of one batch."""

    prompts: dict[str, list[Any]]
    """The columns of ``/prompts``."""
    rows: dict[str, np.ndarray]
    """The columns of ``/rows``; ``prompt`` is the place in the study here."""
    sections: np.ndarray
    """The section of each row, an index into ``SECTIONS``."""
    activations: dict[Site, list[np.ndarray]]
    """Encoded rows, [rows, d_model] if the arrays of a site are put one after the other."""
    writes: np.ndarray | None
    """Encoded, [n_prompts, n_layers, 2, d_model]."""
    logits: np.ndarray | None
    """float32 [n_prompts, vocab], where the prompts are yet to be scored."""


class ShardBuffer:
    """What has come in of one shard.

    Args:
        folder: Where temporary files may be put.
        order: The shard's prompts, as places in the study, in the order in which it keeps them.
        sites: Sites of the rows.
        d_model: Width of the rows.
        dtype: Type in which they are stored.
        kinds: Names of the kinds of tokens.
        seed: What the permutation of the rows follows from.
        memory_bytes: Rows of all sites are held in memory up to this size.
    """

    def __init__(
        self,
        folder: Path,
        order: Sequence[int],
        sites: Sequence[Site],
        *,
        d_model: int,
        dtype: str,
        kinds: Sequence[str],
        seed: Sequence[int],
        memory_bytes: int,
    ) -> None:
        self._rank = {prompt: rank for rank, prompt in enumerate(order)}
        self._d_model, self._dtype, self._kinds, self._seed = d_model, dtype, kinds, tuple(seed)
        limit = memory_bytes // max(1, len(sites))
        self._arrivals = {site: _Arrivals(folder, limit, d_model, DTYPES[dtype]) for site in sites}
        self._prompts: dict[str, list[Any]] = {name: [] for name in (*TEXT_COLUMNS, *NUMBER_COLUMNS)}
        self._rows: list[dict[str, np.ndarray]] = []
        self._sections: list[np.ndarray] = []
        self._writes: list[np.ndarray] = []
        self._logits: list[np.ndarray] = []
        self._failed: dict[int, tuple[str, str]] = {}

    def add(self, part: Part) -> None:
        """Take in some prompts with their rows."""
        for name, values in part.prompts.items():
            self._prompts[name] += values
        self._rows.append(part.rows)
        self._sections.append(part.sections)
        for site, arrays in part.activations.items():
            self._arrivals[site].add(arrays)
        if part.writes is not None:
            self._writes.append(part.writes)
        if part.logits is not None:
            self._logits.append(part.logits)

    def fail(self, prompt: int, prompt_id: str, why: str) -> None:
        """Record a prompt that could not be run."""
        self._failed[prompt] = (prompt_id, why)

    def write(self, path: Path, *, compression: str | None, logits_path: Path | None = None) -> None:
        """Write the shard, with its prompts in the planned order and its rows in sections, and let go of everything.

        Args:
            path: The file.
            compression: Of the activations, as :func:`write_shard` has it.
            logits_path: Where to put logits [n_prompts, vocab] in the same order, for a shard that waits for scores.

        Raises:
            InputError: The disk refuses to write.
        """
        by_rank = np.argsort([self._rank[prompt] for prompt in self._prompts["index"]], kind="stable")
        prompts = {name: [values[i] for i in by_rank] for name, values in self._prompts.items()}
        rows, sections = self._row_columns(prompts["index"])
        if logits_path is not None:
            logits = np.concatenate(self._logits)[by_rank] if self._logits else np.empty((0, 1), dtype=np.float32)
            write_atomic(logits_path, _npy(logits))
        order = self._row_order(rows, sections)
        sizes = np.bincount(sections, minlength=len(SECTIONS)).tolist()
        write_shard(
            path,
            prompts=prompts,
            rows={name: values[order] for name, values in rows.items()},
            sections={name: size for name, size in zip(SECTIONS, sizes, strict=True) if size},
            activations=self._in_order(order),
            writes=np.concatenate(self._writes)[by_rank] if self._writes else None,
            failed=dict(self._failed[prompt] for prompt in sorted(self._failed)),
            kinds=self._kinds,
            dtype=self._dtype,
            compression=compression,
        )

    def _row_columns(self, index: list[int]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The rows' columns and sections in the order in which they came, ``prompt`` counted within the shard."""
        place = {prompt: i for i, prompt in enumerate(index)}
        rows: dict[str, np.ndarray] = {
            name: np.concatenate([np.empty(0, dtype=kind), *(part[name] for part in self._rows)])
            for name, kind in ROW_COLUMNS.items()
        }
        rows["prompt"] = np.array([place[prompt] for prompt in rows["prompt"].tolist()], dtype=np.int32)
        return rows, np.concatenate([np.empty(0, dtype=np.int64), *self._sections])

    def _row_order(self, rows: dict[str, np.ndarray], sections: np.ndarray) -> np.ndarray:
        """Section by section: single positions in the order of the prompts, others permuted; whatever came when."""
        order = np.lexsort((rows["position"], rows["prompt"], sections))
        of_kind = sections[order] > SECTIONS.index("last_instruction")
        order[of_kind] = np.random.default_rng(self._seed).permutation(order[of_kind])
        return order[np.argsort(sections[order], kind="stable")]

    def _in_order(self, order: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        for site in list(self._arrivals):
            yield str(site), self._arrivals.pop(site).put(place)


class _Arrivals:
    """One site's rows in the order in which they came, in memory up to a limit."""

    def __init__(self, folder: Path, limit: int, d_model: int, dtype: np.dtype) -> None:
        self._folder, self._limit, self._d_model, self._dtype = folder, limit, d_model, dtype
        self._held: list[np.ndarray] = []
        self._bytes = 0
        self._file: IO[bytes] | None = None

    def add(self, arrays: Sequence[np.ndarray]) -> None:
        """Take in rows; those over the limit go to an unnamed file."""
        self._held += [values.copy() for values in arrays]  # a view would keep the rows of the whole batch
        self._bytes += sum(values.nbytes for values in arrays)
        if self._bytes > self._limit:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=str(self._folder))  # noqa: SIM115  closed in put
            for values in self._held:
                self._file.write(np.ascontiguousarray(values).data)
            self._held, self._bytes = [], 0

    def put(self, place: np.ndarray) -> np.ndarray:
        """Return all rows, row i in place ``place[i]``, and let go of them."""
        rows = np.empty((len(place), self._d_model), dtype=self._dtype)
        start = 0
        for values in self._arrays():
            rows[place[start : start + len(values)]] = values
            start += len(values)
        self._held = []
        return rows

    def _arrays(self) -> Iterator[np.ndarray]:
        if self._file is not None:
            self._file.seek(0)
            while block := self._file.read(CHUNK_ROWS * self._d_model * self._dtype.itemsize):
                yield np.frombuffer(block, dtype=self._dtype).reshape(-1, self._d_model)
            self._file.close()
        yield from self._held


def _npy(values: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, values)
    return content.getvalue()
