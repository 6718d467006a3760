"""One shard: an HDF5 file with some prompts of one stratum (category and split) and fold, and their rows.

    /prompts/<column>       one entry a prompt: id, text, category, split, fold, source (id of the prompt it was made
                            from), variant (how; empty for an original), response, index (place in the study),
                            n_tokens, first_token (of the response, or -1), refused, by_phrases, by_score,
                            refusal_score (nats), truncated (tokens cut)
    /rows/<column>          one entry a row: prompt (index into /prompts), position (among the prompt's own unpadded
                            tokens; those of the response come after), token_id, kind (index into the attribute
                            ``names``), is_special (a special token of the tokenizer)
    /activations/<site>     [rows, d_model], in chunks of 1,024 rows
    /writes                 [n_prompts, n_layers, 2, d_model]: what attention (0) and MLP (1) of every layer
                            add at the last prompt position
    /failed/id, /failed/why prompts that could not be run

Rows stand in sections, each one run of rows (``SECTIONS``; the attributes ``sections`` and ``section_rows`` of /rows
say how many are in each): ``last`` and ``last_instruction`` hold those rows of all prompts, in the order of
/prompts; the others hold the remaining rows of a kind, permuted, so that any run of them is a random sample.
bfloat16 is stored as uint16 with the attribute ``dtype``; the attribute ``sha256`` of every dataset is that of its
values. A file is written under a temporary name, flushed and renamed: a shard under its final name is whole.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from refusal import InputError
from refusal.activations.encoding import DTYPES, decode
from refusal.activations.space import reserve, writing

CHUNK_ROWS = 1024
SECTIONS = ("last", "last_instruction", "instruction", "template", "response", "prefix", "special")
COMPRESSIONS = ("lzf", "gzip")
TEXT_COLUMNS = ("id", "text", "category", "split", "fold", "source", "variant", "response")
NUMBER_COLUMNS = {
    "index": np.int64,
    "n_tokens": np.int32,
    "first_token": np.int32,
    "refused": np.bool_,
    "by_phrases": np.bool_,
    "by_score": np.bool_,
    "refusal_score": np.float32,
    "truncated": np.int32,
}
ROW_COLUMNS = {
    "prompt": np.int32,
    "position": np.int32,
    "token_id": np.int32,
    "kind": np.uint8,
    "is_special": np.bool_,
}


@dataclass(frozen=True)
class Shard:
    """A finished shard, as the manifest lists it."""

    path: Path
    category: str
    split: str
    fold: str
    n_prompts: int
    n_rows: int
    sections: tuple[tuple[str, int], ...]
    """Names and sizes of the sections, in the order of their rows."""

    @property
    def n_chunks(self) -> int:
        """Number of chunks that hold its rows."""
        return -(-self.n_rows // CHUNK_ROWS)

    def runs(self, names: Iterable[str]) -> list[tuple[int, int]]:
        """Return (first row, stop row) of those of these sections that have rows, in the order of the rows."""
        wanted, start, runs = set(names), 0, []
        for name, size in self.sections:
            if name in wanted and size:
                runs.append((start, start + size))
            start += size
        return runs


@contextmanager
def open_shard(path: Path, mode: str = "r") -> Iterator[h5py.File]:
    """Open a shard's file.

    HDF5 would read the whole chunk for a few of its rows, to cache it; it is told to cache none.

    Raises:
        InputError: The file is absent, cut short, or not what this module writes.
    """
    try:
        with h5py.File(path, mode, rdcc_nbytes=0) as file:
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
    sections: Mapping[str, int],
    activations: Iterable[tuple[str, np.ndarray]],
    writes: np.ndarray | None,
    failed: Mapping[str, str],
    kinds: Sequence[str],
    dtype: str,
    compression: str | None = None,
) -> None:
    """Write a shard and publish it by a rename.

    Args:
        path: Final path of the file.
        prompts: A sequence for each column of ``/prompts``.
        rows: An array [rows] for each column of ``/rows``.
        sections: How many rows are in each section, in their order.
        activations: Sites' names with their encoded rows [rows, d_model]; drawn one by one, to hold one at a time.
        writes: Encoded component writes [n_prompts, n_layers, 2, d_model].
        failed: Why, for the id of each prompt that could not be run.
        kinds: Names of the kinds of tokens.
        dtype: Which type the encoded values stand for.
        compression: ``lzf`` or ``gzip``, of activations and writes; None stores them as they are.

    Raises:
        InputError: The disk refuses to write.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(temporary) as file:
            _write_tables(file, prompts, rows, failed)
            names = np.array(list(sections), dtype="S")  # of one length: HDF5 can hang on a damaged text of any length
            file["rows"].attrs.update({"sections": names, "section_rows": list(sections.values())})
            file["rows/kind"].attrs["names"] = list(kinds)
            for site, values in activations:
                _write_values(file, f"activations/{site}", values, dtype, CHUNK_ROWS, compression)
            if writes is not None:
                _write_values(file, "writes", writes, dtype, None, compression)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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


def replace_column(file: h5py.File, name: str, values: np.ndarray) -> None:
    """Put other numbers into a column of a shard that is open for writing; the file keeps its shape and size."""
    found = dataset(file, name)
    found[...] = values
    found.attrs.modify("sha256", checksum(np.asarray(values, dtype=found.dtype)))


def read_values(file: h5py.File, name: str, rows: slice) -> np.ndarray:
    """Read rows of activations or of writes, whatever they are stored as, as float32."""
    found = dataset(file, name)
    return decode(found[rows], str(found.attrs["dtype"]))


def read_prompts(file: h5py.File) -> dict[str, np.ndarray]:
    """Read the columns of ``/prompts``, each [n_prompts]."""
    return {name: column(file, f"prompts/{name}") for name in (*TEXT_COLUMNS, *NUMBER_COLUMNS)}


def read_sections(file: h5py.File) -> dict[str, int]:
    """Return the number of rows of each section, in the order of the rows."""
    attributes = file["rows"].attrs
    sizes = (int(size) for size in np.asarray(attributes["section_rows"]))
    return dict(zip(np.asarray(attributes["sections"]).astype(str).tolist(), sizes, strict=True))


def checksum(values: np.ndarray | Sequence[str]) -> np.bytes_:
    """Return the SHA-256 of an array's bytes, or of texts joined by NUL, in hexadecimal; of one length in a file."""
    content = _bytes(values) if isinstance(values, np.ndarray) else "\0".join(values).encode()
    return np.bytes_(hashlib.sha256(content).hexdigest())


def is_sound(values: h5py.Dataset) -> bool:
    """Whether a dataset's values are those that were written, by its attribute ``sha256``; read piece by piece."""
    if h5py.check_string_dtype(values.dtype):
        return checksum(list(values.asstr()[:])) == values.attrs["sha256"]
    digest = hashlib.sha256()
    for start in range(0, len(values), CHUNK_ROWS):
        digest.update(_bytes(values[start : start + CHUNK_ROWS]))
    return np.bytes_(digest.hexdigest()) == values.attrs["sha256"]


def _bytes(values: np.ndarray) -> memoryview:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def _write_tables(
    file: h5py.File, prompts: Mapping[str, Any], rows: Mapping[str, np.ndarray], failed: Mapping[str, str]
) -> None:
    for name in TEXT_COLUMNS:
        _write_texts(file, f"prompts/{name}", prompts[name])
    for name, kind in NUMBER_COLUMNS.items():
        _create(file, f"prompts/{name}", np.asarray(prompts[name], dtype=kind))
    for name, kind in ROW_COLUMNS.items():
        _create(file, f"rows/{name}", np.asarray(rows[name], dtype=kind))
    _write_texts(file, "failed/id", failed)
    _write_texts(file, "failed/why", failed.values())


def _write_texts(file: h5py.File, name: str, texts: Iterable[str]) -> None:
    """HDF5 strings end at a NUL, and are UTF-8: what cannot be kept becomes U+FFFD or ``?``."""
    storable = [text.replace("\0", "\ufffd").encode("utf-8", "replace").decode() for text in texts]
    reserve(file, sum(len(text.encode()) + 32 for text in storable))  # and what says where each text is
    created = file.create_dataset(name, data=storable, dtype=h5py.string_dtype())
    created.attrs["sha256"] = checksum(storable)


def _write_values(
    file: h5py.File, name: str, values: np.ndarray, dtype: str, chunk_rows: int | None, compression: str | None
) -> None:
    if values.dtype != DTYPES[dtype]:
        raise TypeError(f"{name} is {values.dtype}, not {dtype} as encoded")
    layout: dict[str, Any] = {}
    if len(values) and (chunk_rows or compression):
        layout["chunks"] = (min(chunk_rows or 1, len(values)), *values.shape[1:])
    if len(values) and compression:  # bytes of equal weight side by side: exponents compress, digits do not
        layout |= {"compression": compression, "shuffle": True}
    _create(file, name, values, **layout).attrs["dtype"] = dtype


def _create(file: h5py.File, name: str, values: np.ndarray, **layout: Any) -> h5py.Dataset:
    reserve(file, values.nbytes + values[:CHUNK_ROWS].nbytes)  # the last chunk is stored whole
    created = file.create_dataset(name, data=values, **layout)
    created.attrs["sha256"] = checksum(values)
    return created
