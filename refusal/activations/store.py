"""Read what a collection left: a folder of shards and ``manifest.json``, which was written last.

The manifest is the store's card: what made it, its sites, its refusal tokens, its shards, the prompts that
failed, and the refusal rates. Files are opened for one read and closed again, so that a store can be used
in several processes, and across a fork.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from refusal import InputError
from refusal.activations.samplers import Stratum
from refusal.activations.shard import (
    CHUNK_ROWS,
    NUMBER_COLUMNS,
    ROW_COLUMNS,
    SECTIONS,
    TEXT_COLUMNS,
    Shard,
    column,
    open_shard,
    read_prompts,
    read_values,
)
from refusal.artifacts import read_json
from refusal.models.sites import Site, parse_site

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "manifest.json"
SCHEMA_VERSION = 2


def is_complete(folder: Path) -> bool:
    """Whether a collection has finished here, and all its shards are still in place."""
    manifest = Path(folder) / MANIFEST
    return manifest.is_file() and all(
        (Path(folder) / shard["file"]).is_file() for shard in read_json(manifest)["shards"]
    )


class ActivationStore:
    """A finished collection of activations.

    Raises:
        InputError: The folder has no manifest, or one that this version cannot read.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        if not (self.folder / MANIFEST).is_file():
            raise InputError(f"there are no finished activations in {self.folder}; collect them first")
        self.manifest: dict[str, Any] = read_json(self.folder / MANIFEST)
        if self.manifest.get("schema_version") != SCHEMA_VERSION:
            raise InputError(f"{self.folder / MANIFEST} is of another version; rebuild it with force=true")
        self.sites: list[Site] = [parse_site(name) for name in self.manifest["sites"]]
        self.dtype: str = self.manifest["dtype"]
        """Number type on disk; rows are handed out in float32."""
        self.d_model: int = self.manifest["d_model"]
        self.n_layers: int = self.manifest["n_layers"]
        self.refusal_tokens: list[int] = self.manifest["refusal_tokens"] or []
        """Tokens that open refusals; none in a store without labels."""
        self.max_prompt_tokens: int | None = self.manifest["max_prompt_tokens"]
        """Longer prompts lost the end of their instruction."""
        self.shards: list[Shard] = [
            Shard(
                self.folder / shard["file"],
                **{key: shard[key] for key in ("category", "split", "fold", "n_prompts", "n_rows")},
                sections=tuple(shard["sections"].items()),
            )
            for shard in self.manifest["shards"]
        ]

    def prompts(self) -> pd.DataFrame:
        """Return the prompts with their labels, in the study's order, without those that failed.

        Columns: id, text, category, split, fold, source (id of the prompt it was made from, or its own), variant
        (how; empty for an original), response, index (place in the study), n_tokens, first_token (of the response),
        refused, by_phrases, by_score, refusal_score (nats), truncated (tokens cut).
        """
        return self._table.copy()

    def evidence(self) -> np.ndarray:
        """Return which prompts count in comparisons, bool [n_prompts], in the order of ``prompts()``.

        Those made from another are no observations of their own, and where both rules have to say what was refused,
        a prompt on which they disagree is neither refused nor complied with.

        Raises:
            InputError: The collection asked for no responses and no scores.
        """
        if self.manifest["labels"] == "none":
            raise InputError(
                f"{self.folder} has no labels, as model.response_tokens=0 asked for no responses; collect them"
            )
        table = self._table
        agree = (table["by_phrases"] == table["by_score"]).to_numpy() | (self.manifest["labels"] != "both")
        return (table["variant"] == "").to_numpy() & agree

    @cached_property
    def _table(self) -> pd.DataFrame:
        import pandas as pd

        columns: dict[str, list[np.ndarray]] = {name: [] for name in (*TEXT_COLUMNS, *NUMBER_COLUMNS)}
        for shard in self.shards:
            with open_shard(shard.path) as file:
                for name, values in read_prompts(file).items():
                    columns[name].append(values)
        table = pd.DataFrame({name: np.concatenate(parts) for name, parts in columns.items()})
        return table.iloc[self._order].reset_index(drop=True)

    @cached_property
    def _order(self) -> np.ndarray:
        """Where each prompt of the study stands in the shards put one after the other."""
        index = []
        for shard in self.shards:
            with open_shard(shard.path) as file:
                index.append(column(file, "prompts/index"))
        return np.argsort(np.concatenate(index), kind="stable")

    def writes(self) -> np.ndarray:
        """Return what attention (0) and MLP (1) of every layer add at the last prompt position.

        float32 [n_prompts, n_layers, 2, d_model], in the order of ``prompts()``.

        Raises:
            InputError: The collection left them out.
        """
        if not self.manifest["writes"]:
            raise InputError(f"{self.folder} was collected without component writes; use collect.writes=true")
        return self._in_order([self._read(shard, "writes", slice(None)) for shard in self.shards])

    def last(self, site: Site | str) -> np.ndarray:
        """Return a site's activations at the last prompt position: float32 [n_prompts, d_model], as ``prompts()``."""
        return self._in_order([self.read_rows(shard, site, 0, shard.n_prompts) for shard in self.shards])

    def last_instruction(self, site: Site | str) -> np.ndarray:
        """Return a site's activations at the last token of the instruction, float32 [n_prompts, d_model].

        Raises:
            InputError: The collection left that position out.
        """
        if "last_instruction" not in self.manifest["positions"]:
            raise InputError(f"{self.folder} lacks last_instruction; add it to collect.positions")
        # a template without text after the instruction makes it the last position itself
        runs = [shard.runs(["last_instruction"]) or [(0, shard.n_prompts)] for shard in self.shards]
        return self._in_order(
            [self.read_rows(shard, site, *run[0]) for shard, run in zip(self.shards, runs, strict=True)]
        )

    def strata(self, folds: Sequence[str], sections: Collection[str] = SECTIONS) -> list[Stratum]:
        """Return the strata that have rows in these sections and folds, sorted by split and category."""
        rows: dict[tuple[str, str], int] = {}
        for shard in self.shards:
            n_rows = sum(stop - start for start, stop in shard.runs(sections))
            if shard.fold in folds and n_rows:
                key = (shard.split, shard.category)
                rows[key] = rows.get(key, 0) + n_rows
        return [Stratum(category, split, rows[split, category]) for split, category in sorted(rows)]

    def read_chunk(self, shard: Shard, chunk: int, site: Site | str) -> np.ndarray:
        """Read one whole chunk of a site: float32 [at most 1,024, d_model]."""
        return self.read_rows(shard, site, chunk * CHUNK_ROWS, (chunk + 1) * CHUNK_ROWS)

    def read_rows(self, shard: Shard, site: Site | str, start: int, stop: int) -> np.ndarray:
        """Read consecutive rows of a site, float32 [stop - start, d_model]; the first n_prompts are last positions."""
        self.check_site(site)
        return self._read(shard, f"activations/{site}", slice(start, stop))

    def row_table(self, shard: Shard) -> dict[str, np.ndarray]:
        """Read what each row of a shard is: its ``ROW_COLUMNS``, each [n_rows]."""
        with open_shard(shard.path) as file:
            return {name: column(file, f"rows/{name}") for name in ROW_COLUMNS}

    def check_site(self, site: Site | str) -> None:
        """Raise an ``InputError`` unless the site was collected."""
        if str(site) not in self.manifest["sites"]:
            raise InputError(f"{site} is not in {self.folder}; it holds {', '.join(self.manifest['sites'])}")

    def _read(self, shard: Shard, name: str, rows: slice) -> np.ndarray:
        with open_shard(shard.path) as file:
            return read_values(file, name, rows)

    def _in_order(self, parts: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(parts)[self._order]
