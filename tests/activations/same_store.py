"""In what two stores differ: files, datasets, attributes, and the manifest but for what it says of the run itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

OF_THE_RUN = ("seconds", "time", "command", "config")  # the configuration holds paths; its fingerprint is compared


def differences(expected: Path, found: Path) -> list[str]:
    """Return what differs, a line each; nothing for stores that are the same."""
    names, other = (sorted(path.name for path in folder.iterdir()) for folder in (expected, found))
    if names != other:
        return [f"files: {', '.join(sorted(set(names) ^ set(other)))}"]
    return [
        f"{name}: {line}" for name in names for line in _different(_contents(expected / name), _contents(found / name))
    ]


def _different(expected: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    yield from sorted(expected.keys() ^ found.keys())
    yield from (name for name in sorted(expected.keys() & found.keys()) if not _same(expected[name], found[name]))


def _same(expected: Any, found: Any) -> bool:
    """Whether two values are the same to the bit (so that NaN is NaN), and of the same type."""
    a, b = np.asarray(expected), np.asarray(found)
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes()


def _contents(path: Path) -> dict[str, Any]:
    """Every value of a file by name: of JSON its entries, of HDF5 its datasets and attributes."""
    if path.suffix == ".json":
        return {
            name: json.dumps(value) for name, value in json.loads(path.read_text()).items() if name not in OF_THE_RUN
        }
    values: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        values.update({f"{name}@{key}": value for key, value in item.attrs.items()})
        if isinstance(item, h5py.Dataset):
            values[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(visit)
    return values
