"""Write HDF5 files so that a full disk is an ordinary error.

HDF5 does not survive a failing write: it can neither go on nor close the file, and brings the process down when it
ends. So the disk sets space aside before each write; what is left over is given back at the end.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from refusal import InputError

MARGIN = 1 << 20  # of bytes, for what HDF5 writes beside values: headers, indices, what it holds back until the end


@contextmanager
def writing(path: Path, mode: str = "w") -> Iterator[h5py.File]:
    """Open a new file (``w``) or one that is there (``r+``); flushed to the disk when the block ends.

    Raises:
        InputError: The disk refuses to write.
    """
    try:
        with path.open("wb" if mode == "w" else "r+b") as plain:
            _set_aside(plain.fileno(), path.stat().st_size + MARGIN)  # before HDF5 has anything to write
        with h5py.File(path, mode) as file:
            reserve(file, 0)
            yield file
            file.flush()
            os.ftruncate(_descriptor(file), file.id.get_filesize())
        flush(path)
    except OSError as error:
        cause = os.strerror(error.errno) if error.errno else str(error).partition("\n")[0]
        raise InputError(f"cannot write in {path.parent}: {cause}") from error


def flush(path: Path) -> None:
    """Have the system write a file to the disk, before it is renamed."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def reserve(file: h5py.File, n_bytes: int) -> None:
    """Have the disk set aside room for so many more bytes of values.

    Raises:
        OSError: It has not so many.
    """
    _set_aside(_descriptor(file), file.id.get_filesize() + n_bytes + MARGIN)


def _descriptor(file: h5py.File) -> int:
    return file.id.get_vfd_handle()


def _set_aside(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    elif size - os.fstat(descriptor).st_size > shutil.disk_usage(descriptor).free:  # macOS
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
