"""Files that other programs wrote: whatever is wrong with one of them is one line that names the file and the entry.

``Options`` is a JSON object of settings, ``Tensors`` are named arrays; both check what is taken out of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from refusal import InputError
from refusal.artifacts import read_json, write_atomic

REQUIRED = object()  # no default


class Options:
    """Settings of a JSON object.

    Args:
        path: The file.
        content: The object, or one within it.

    Raises:
        InputError: It is not an object.
    """

    def __init__(self, path: Path, content: Any) -> None:
        if not isinstance(content, dict):
            raise InputError(f"{path} does not hold the settings of an autoencoder (a JSON object)")
        self.path, self.content = path, content

    @classmethod
    def read(cls, path: Path) -> Options:
        """Read a file."""
        return cls(path, read_json(path))

    def within(self, name: str) -> Options:
        """Return the settings of an object in this one, empty if there is none."""
        return Options(self.path, self.content.get(name) or {})

    def get(self, name: str, default: Any = REQUIRED) -> Any:
        """Return a setting as it is.

        Raises:
            InputError: It is missing, and there is no default.
        """
        if name in self.content:
            return self.content[name]
        if default is REQUIRED:
            raise InputError(f"{self.path} lacks the setting '{name}'")
        return default

    def whole(self, name: str, default: Any = REQUIRED) -> int:
        """Return a whole number that is not negative."""
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value) or value < 0:
            raise InputError(f"{self.path}: {name}={value!r} is not a whole number from 0")
        return int(value)

    def positive(self, name: str) -> float:
        """Return a number over 0."""
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise InputError(f"{self.path}: {name}={value!r} is not a number over 0")
        return float(value)

    def text(self, name: str) -> str | None:
        """Return a text, or None where there is none."""
        value = self.get(name, None)
        return value if isinstance(value, str) and value else None

    def expect(self, name: str, wanted: Any, because: str) -> None:
        """Refuse a setting that says anything else than what is wanted; one that is absent says just that."""
        value = self.get(name, wanted)
        if value != wanted:
            self.refuse(name, because)

    def refuse(self, name: str, because: str) -> NoReturn:
        """Raise that a setting cannot be honoured."""
        raise InputError(f"{self.path}: {name}={self.content.get(name)!r} cannot be honoured: {because}")


class Tensors:
    """Named arrays of one file."""

    def __init__(self, path: Path, content: Mapping[str, Tensor]) -> None:
        self.path, self.content = path, content

    def __contains__(self, name: str) -> bool:
        return name in self.content

    @classmethod
    def safetensors(cls, path: Path) -> Tensors:
        """Read a ``.safetensors`` file."""
        try:
            return cls(path, load(_bytes(path)))
        except SafetensorError as error:
            raise InputError(f"{path} is damaged ({error}); fetch or write it again") from error

    @classmethod
    def torch(cls, path: Path) -> Tensors:
        """Read a file of ``torch.save`` that holds a dict of tensors and nothing else, without running any of it."""
        _bytes(path, 0)
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # of damaged bytes torch's unpickler raises anything
            raise InputError(f"{path} is damaged, or holds more than tensors, which is never loaded") from error
        if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
            raise InputError(f"{path} does not hold named tensors (a state_dict)")
        return cls(path, content)

    @classmethod
    def npz(cls, path: Path) -> Tensors:
        """Read an ``.npz`` file; pickled objects in it are refused."""
        _bytes(path, 0)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(path, {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays})
        except Exception as error:  # of damaged bytes numpy and zlib raise anything
            raise InputError(f"{path} is damaged, or holds more than arrays, which is never loaded") from error

    def take(self, name: str, *shape: int) -> Tensor:
        """Return a tensor in float32.

        Raises:
            InputError: It is missing, of another shape, or not finite.
        """
        value = self._tensor(name)
        if tuple(value.shape) != shape:
            raise InputError(f"{self.path}: {name} has the shape {list(value.shape)}, not {list(shape)}")
        value = value.detach().to(torch.float32)
        if not bool(value.isfinite().all()):
            raise InputError(f"{self.path}: {name} has values that are not finite")
        return value

    def vector(self, name: str) -> Tensor:
        """Return a tensor of one dimension, of any length, in float32."""
        return self.take(name, self._tensor(name).numel())

    def count(self, name: str) -> int:
        """Return a whole number that was kept as a tensor."""
        return int(self.take(name))

    def shape(self, name: str) -> tuple[int, int]:
        """Return the two sides of a matrix.

        Raises:
            InputError: It is missing, or no matrix.
        """
        value = self._tensor(name)
        if value.ndim != 2:
            raise InputError(f"{self.path}: {name} has the shape {list(value.shape)}, and is no matrix")
        return value.shape[0], value.shape[1]

    def _tensor(self, name: str) -> Tensor:
        if name not in self.content:
            raise InputError(f"{self.path} lacks the tensor '{name}'; it has: {', '.join(sorted(self.content))}")
        return self.content[name]


def _bytes(path: Path, n: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(n)
    except FileNotFoundError as error:
        raise InputError(f"there is no {path}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a ``.safetensors`` file.

    Raises:
        InputError: The disk refuses.
    """
    write_atomic(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))
