"""A small file system that only commands see which have entered its mount namespace; no test is left with a mount."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

IS_ROOT = os.geteuid() == 0
UNSHARE = ("unshare", "--mount") if IS_ROOT else ("unshare", "--map-root-user", "--mount")
NAMESPACES = ("mnt",) if IS_ROOT else ("user", "mnt")
MOUNT = 'mount -t tmpfs -o size=$1m none "$0" && echo mounted && exec cat'


@dataclass(frozen=True)
class Disk:
    """A file system and the process that keeps it."""

    folder: Path
    """Where it is mounted, for those inside."""
    keeper: int

    @property
    def seen(self) -> Path:
        """The same folder from outside."""
        return Path(f"/proc/{self.keeper}/root{self.folder}")

    def enter(self) -> None:
        """Take this process, of one thread, inside and into the folder."""
        libc = ctypes.CDLL(None, use_errno=True)
        for name in NAMESPACES:
            with Path(f"/proc/{self.keeper}/ns/{name}").open("rb") as namespace:
                if libc.setns(namespace.fileno(), 0):
                    raise OSError(ctypes.get_errno(), f"cannot enter {namespace.name}")
        os.chdir(self.folder)


@contextmanager
def own_disk(folder: Path, megabytes: int) -> Iterator[Disk | None]:
    """Keep a file system of its own mounted on a folder; None where none can be mounted."""
    if shutil.which("unshare") is None:
        yield None
        return
    command = [*UNSHARE, "sh", "-c", MOUNT, str(folder), str(megabytes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as keeper:
        assert keeper.stdout is not None
        yield Disk(folder, keeper.pid) if keeper.stdout.readline() else None  # the keeper ends with its input


def fill(ballast: Path) -> None:
    """Take all the room that is left, down to the last blocks."""
    with ballast.open("wb") as file:
        for size in (1 << 20, 1 << 12):
            with suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)
