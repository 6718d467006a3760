"""One shard: an HDF5 file with some prompts of one stratum (category and split) and fold, and their rows.

    /prompts/<column>       one entry a prompt: id, text, category, split, fold, response, index (place in the
                            study), n_tokens, first_token (of the response), refused, refusal_score
    /rows/<column>          one entry a row: prompt (index into /prompts), position (among the prompt's own
                            unpadded tokens), token_id, kind (index into the attribute ``names``)
    /activations/<site>     [rows, d_model], in chunks of 1,024 rows
    /writes                 [n_prompts, n_layers, 2, d_model]: what attention (0) and MLP (1) of every layer
                            add at the last prompt position
    /failed/id, /failed/why prompts that could not be run

The first n_prompts rows are the last positions, in the order of /prompts; the others follow, permuted, so
that any run of them is a random sample. bfloat16 is stored as uint16 with the attribute ``dtype``. A file
is written under a temporary name, flushed and renamed: a shard under its final name is whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from refusal import InputError
from refusal.activations.encoding import DTYPES, decode

CHUNK_ROWS = 1024
TEXT_COLUMNS = ("id", "text", "category", "split", "fold", "response")
NUMBER_COLUMNS = {
    "index": np.int64,
    "n_tokens": np.int32,
    "first_token": np.int32,
    "refused": np.bool_,
    "refusal_score": np.float32,
}
ROW_COLUMNS = {"prompt": np.int32, "position": np.int32, "token_id": np.int32, "kind": np.uint8}


@dataclass(frozen=True)
class Shard:
    """A finished shard, as the manifest lists it."""

    path: Path
    category: str
    split: str
    fold: str
    n_prompts: int
    n_rows: int

    @property
    def n_chunks(self) -> int:
        """Number of chunks that hold its rows."""
        return -(-self.n_rows // CHUNK_ROWS)


@contextmanager
def open_shard(path: Path, mode: str = "r") -> Iterator[h5py.File]:
    """Open a shard's file.

    Raises:
        InputError: The file is absent, cut short, or not what this module writes.
    """
    try:
        with h5py.File(path, mode) as file:
            yield file
    except FileNotFoundError as error:
        raise InputError(
            f"there is no {path}; collect again to replace it, or rebuild everything with force=true"
        ) from error
    except (OSError, KeyError, RuntimeError) as error:
        cause = str(error).strip().splitlines()[0]
        raise InputError(
            f"{path} is damaged ({cause}); delete it and collect again, or rebuild everything with force=true"
        ) from error


def write_shard(
    path: Path,
    *,
    prompts: Mapping[str, Any],
    rows: Mapping[str, np.ndarray],
    activations: Iterable[tuple[str, np.ndarray]],
    writes: np.ndarray | None,
    failed: Mapping[str, str],
    kinds: Iterable[str],
    dtype: str,
) -> None:
    """Write a shard and publish it by a rename.

    Args:
        path: Final path of the file.
        prompts: A sequence for each column of ``/prompts``.
        rows: An array [rows] for each column of ``/rows``.
        activations: Sites' names with their encoded rows [rows, d_model]; drawn one by one, to hold one at a time.
        writes: Encoded component writes [n_prompts, n_layers, 2, d_model].
        failed: Why, for the id of each prompt that could not be run.
        kinds: Names of the kinds of tokens.
        dtype: Which type the encoded values stand for.

    Raises:
        InputError: The disk refuses to write.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with h5py.File(temporary, "w") as file:
            _write_tables(file, prompts, rows, failed)
            file["rows/kind"].attrs["names"] = list(kinds)
            for site, values in activations:
                chunks = (min(CHUNK_ROWS, len(values)), values.shape[1]) if len(values) else None
                _write_values(file, f"activations/{site}", values, dtype, chunks)
            if writes is not None:
                _write_values(file, "writes", writes, dtype, None)
        flush(temporary)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have the system write a file to the disk before it is renamed."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset of the file; ``KeyError`` if there is none of this name."""
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise KeyError(f"{name} is not a dataset")
    return found


def column(file: h5py.File, name: str) -> np.ndarray:
    """Read a whole column of a table; text as ``str``."""
    found = dataset(file, name)
    return np.asarray(found.asstr()[()] if h5py.check_string_dtype(found.dtype) else found[()])


def read_values(file: h5py.File, name: str, rows: slice) -> np.ndarray:
    """Read rows of activations or of writes, whatever they are stored as, as float32."""
    found = dataset(file, name)
    return decode(found[rows], str(found.attrs["dtype"]))


def read_prompts(file: h5py.File) -> dict[str, np.ndarray]:
    """Read the columns of ``/prompts``, each [n_prompts]."""
    return {name: column(file, f"prompts/{name}") for name in (*TEXT_COLUMNS, *NUMBER_COLUMNS)}


def _write_tables(
    file: h5py.File, prompts: Mapping[str, Any], rows: Mapping[str, np.ndarray], failed: Mapping[str, str]
) -> None:
    text = h5py.string_dtype()
    for name in TEXT_COLUMNS:
        file.create_dataset(f"prompts/{name}", data=[_storable(value) for value in prompts[name]], dtype=text)
    for name, kind in NUMBER_COLUMNS.items():
        file.create_dataset(f"prompts/{name}", data=np.asarray(prompts[name], dtype=kind))
    for name, kind in ROW_COLUMNS.items():
        file.create_dataset(f"rows/{name}", data=np.asarray(rows[name], dtype=kind))
    file.create_dataset("failed/id", data=list(failed), dtype=text)
    file.create_dataset("failed/why", data=[_storable(value) for value in failed.values()], dtype=text)


def _storable(text: str) -> str:
    """HDF5 strings end at a NUL, and are UTF-8: what cannot be kept becomes U+FFFD or ``?``."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _write_values(file: h5py.File, name: str, values: np.ndarray, dtype: str, chunks: tuple[int, ...] | None) -> None:
    if values.dtype != DTYPES[dtype]:
        raise TypeError(f"{name} is {values.dtype}, not {dtype} as encoded")
    file.create_dataset(name, data=values, chunks=chunks).attrs["dtype"] = dtype
