"""Gathers one shard's prompts and rows while batches come in, in any order; then writes the file.

Rows wait in memory, and beyond a bound in unnamed temporary files beside the shard, one a site: what is held when
the file is written is one site, whatever their number.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refusal.activations.encoding import DTYPES
from refusal.activations.shard import NUMBER_COLUMNS, ROW_COLUMNS, TEXT_COLUMNS, write_shard
from refusal.artifacts import write_atomic
from refusal.models.sites import Site

SPILL_BYTES = 1 << 30  # of rows in memory, all sites of a shard together


class Part(NamedTuple):
    """Some prompts of a shard, as they came out of one batch."""

    prompts: dict[str, list[Any]]
    """The columns of ``/prompts``."""
    rows: dict[str, np.ndarray]
    """The columns of ``/rows``; ``prompt`` is the place in the study here."""
    activations: dict[Site, np.ndarray]
    """Encoded, [rows, d_model]."""
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
    ) -> None:
        self._rank = {prompt: rank for rank, prompt in enumerate(order)}
        self._d_model, self._dtype, self._kinds, self._seed = d_model, dtype, kinds, tuple(seed)
        limit = SPILL_BYTES // max(1, len(sites))
        self._files = {site: tempfile.SpooledTemporaryFile(limit, dir=str(folder)) for site in sites}  # noqa: SIM115
        self._prompts: dict[str, list[Any]] = {name: [] for name in (*TEXT_COLUMNS, *NUMBER_COLUMNS)}
        self._rows: list[dict[str, np.ndarray]] = []
        self._writes: list[np.ndarray] = []
        self._logits: list[np.ndarray] = []
        self._failed: dict[int, tuple[str, str]] = {}

    def add(self, part: Part) -> None:
        """Take in some prompts with their rows."""
        for name, values in part.prompts.items():
            self._prompts[name] += values
        self._rows.append(part.rows)
        for site, values in part.activations.items():
            self._files[site].write(values.tobytes())
        if part.writes is not None:
            self._writes.append(part.writes)
        if part.logits is not None:
            self._logits.append(part.logits)

    def fail(self, prompt: int, prompt_id: str, why: str) -> None:
        """Record a prompt that could not be run."""
        self._failed[prompt] = (prompt_id, why)

    def write(self, path: Path, logits_path: Path | None = None) -> None:
        """Write the shard, with its prompts in the planned order and its rows permuted, and let go of everything.

        Args:
            path: The file.
            logits_path: Where to put logits [n_prompts, vocab] in the same order, for a shard that waits for scores.

        Raises:
            InputError: The disk refuses to write.
        """
        by_rank = np.argsort([self._rank[prompt] for prompt in self._prompts["index"]], kind="stable")
        prompts = {name: [values[i] for i in by_rank] for name, values in self._prompts.items()}
        rows = self._row_columns(prompts["index"])
        if logits_path is not None:
            logits = np.concatenate(self._logits)[by_rank] if self._logits else np.empty((0, 1), dtype=np.float32)
            write_atomic(logits_path, _npy(logits))
        order = self._row_order(rows, np.asarray(prompts["n_tokens"], dtype=np.int64))
        write_shard(
            path,
            prompts=prompts,
            rows={name: values[order] for name, values in rows.items()},
            activations=self._permuted(order),
            writes=np.concatenate(self._writes)[by_rank] if self._writes else None,
            failed=dict(self._failed[prompt] for prompt in sorted(self._failed)),
            kinds=self._kinds,
            dtype=self._dtype,
        )
        for file in self._files.values():
            file.close()

    def _row_columns(self, index: list[int]) -> dict[str, np.ndarray]:
        """The rows' columns in the order in which they came, ``prompt`` counted within the shard."""
        place = {prompt: i for i, prompt in enumerate(index)}
        rows: dict[str, np.ndarray] = {
            name: np.concatenate([np.empty(0, dtype=kind), *(part[name] for part in self._rows)])
            for name, kind in ROW_COLUMNS.items()
        }
        rows["prompt"] = np.array([place[prompt] for prompt in rows["prompt"].tolist()], dtype=np.int32)
        return rows

    def _row_order(self, rows: dict[str, np.ndarray], n_tokens: np.ndarray) -> np.ndarray:
        """Last positions first, in the order of the prompts; then the others, permuted; whatever came when."""
        order = np.lexsort((rows["position"], rows["prompt"]))
        is_last = (rows["position"] == n_tokens[rows["prompt"]] - 1)[order]
        others = np.random.default_rng(self._seed).permutation(order[~is_last])
        return np.concatenate([order[is_last], others])

    def _permuted(self, order: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        for site, file in self._files.items():
            file.seek(0)
            values = np.frombuffer(file.read(), dtype=DTYPES[self._dtype]).reshape(-1, self._d_model)
            yield str(site), values[order]


def _npy(values: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, values)
    return content.getvalue()
