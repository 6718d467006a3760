"""Autoencoders in the files of other libraries. One file a format, with a ``FORMAT``: put here, it is found by itself.

    read_sae(path)                          any of them, told apart by its files
    write_sae(folder, sae, origin, name)    those that can be written

Nothing of the libraries is imported, and nothing is unpickled but tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from pkgutil import iter_modules
from typing import NamedTuple

from refusal import InputError
from refusal.sae.base import SparseAutoencoder
from refusal.sae.exchange.foreign import Options
from refusal.sae.exchange.new_folder import new_folder

PACKAGE = "refusal-circuits"


class Origin(NamedTuple):
    """What an autoencoder was trained on, as far as its files say."""

    model: str | None = None
    """Name of the model."""
    site: str | None = None
    """Our name of the place in it."""


class Imported(NamedTuple):
    """What a file holds."""

    sae: SparseAutoencoder
    origin: Origin


@dataclass(frozen=True)
class Format:
    """How a library keeps an autoencoder in a folder."""

    name: str
    files: tuple[str, ...]
    """What a folder must hold, the weights first."""
    read: Callable[[Path], Imported]
    write: Callable[[Path, SparseAutoencoder, Origin], None] | None = None
    """None: read only."""
    mark: tuple[str, str] | None = None
    """A file and a setting in it that tell the format from one with files of the same names."""
    is_pickled: bool = False
    """Whether the weights are a pickle, which the hub is not sent, and which is not fetched from it."""

    def is_in(self, folder: Path) -> bool:
        """Whether a folder looks like this format."""
        if not all((folder / file).is_file() for file in self.files):
            return False
        return self.mark is None or self.mark[1] in Options.read(folder / self.mark[0]).content


@cache
def formats() -> dict[str, Format]:
    """Return the formats of this folder by their names."""
    names = sorted(module.name for module in iter_modules(__path__))
    found = [import_module(f"{__name__}.{name}").FORMAT for name in names]
    return {item.name: item for item in found}


def writable() -> list[str]:
    """Return the names of the formats that can be written."""
    return [name for name, item in formats().items() if item.write is not None]


def format_of(path: Path) -> Format:
    """Return the format of the files in a folder.

    Raises:
        InputError: There is no such folder, or nothing in it is known.
    """
    folder = folder_of(path)
    for item in formats().values():
        if item.is_in(folder):
            return item
    inside = sorted(child.name for child in folder.iterdir() if child.is_dir() and _holds_one(child))
    if inside:
        raise InputError(f"{folder} is not an autoencoder, but holds some: name one of {', '.join(inside)}")
    known = "; ".join(f"{item.name}: {', '.join(item.files)}" for item in formats().values())
    raise InputError(f"{folder} holds no autoencoder; its files would be, by format, {known}")


def folder_of(path: Path) -> Path:
    """Return the folder of an autoencoder, given it or one of its files.

    Raises:
        InputError: There is neither.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"there is no {path}")
    return path if path.is_dir() else path.parent


def read(path: Path, name: str | None = None) -> Imported:
    """Read an autoencoder of any format, and what it was trained on.

    Args:
        path: Its folder, or one of its files.
        name: The format; None: told by the files.

    Raises:
        InputError: A file is missing, damaged, or says something that is not supported; names the file.
    """
    return (format_of(path) if name is None else find(name)).read(folder_of(path))


def read_sae(path: Path, format: str | None = None) -> SparseAutoencoder:
    """Read an autoencoder of any format, on the CPU, ready for use; arguments and errors as of ``read``."""
    return read(path, format).sae


def write_sae(folder: Path, sae: SparseAutoencoder, origin: Origin, name: str) -> None:
    """Write an autoencoder into a new folder, whole or not at all.

    Args:
        folder: Where; must not exist.
        sae: The autoencoder.
        origin: What it was trained on, for the files to say.
        name: The format.

    Raises:
        InputError: The folder exists, the format has no place for this architecture, or the disk refuses.
    """
    item = find(name)
    if item.write is None:
        raise InputError(f"{name} files are only read; those that are written are {', '.join(writable())}")
    with new_folder(folder) as temporary:
        item.write(temporary, sae, origin)


def find(name: str) -> Format:
    """Return the format of this name.

    Raises:
        InputError: There is none.
    """
    if name not in formats():
        raise InputError(f"there is no format '{name}'; the formats are {', '.join(formats())}")
    return formats()[name]


def our_version() -> str:
    """Return the version of this package, for files to say who wrote them."""
    return version(PACKAGE)


def _holds_one(folder: Path) -> bool:
    return any(item.is_in(folder) for item in formats().values())
