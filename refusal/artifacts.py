"""What a finished result on disk is: a folder whose ``card.json`` was written last.

A stage builds its result in a temporary folder beside the final place and publishes it by one rename, so
that a result is either whole or absent. The card says what made it; the fingerprint in the folder's name
covers everything that changes the content, and nothing else.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from refusal import InputError
from refusal.progress import say

CARD = "card.json"
DISK_REFUSES = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG}
DISK_REFUSES |= {errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG}  # a file where a folder should be
NAME_LENGTH = 80  # two of them and a suffix fit into the 255 bytes of a file name


def fingerprint(content: Mapping[str, Any]) -> str:
    """Return 12 hexadecimal digits that name this content: the SHA-256 of its canonical JSON."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        InputError: The file is absent or cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


def clean_name(text: str) -> str:
    """Return the text as one safe path component: letters, digits, ``.``, ``_`` and ``-``, never hidden or empty.

    A text that has to be changed gets six hexadecimal digits of its hash, so that no two texts share a file.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip(".-")[:NAME_LENGTH]
    if name == text and name:
        return name
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:6]
    return f"{name[: NAME_LENGTH - 7]}-{digest}" if name else digest


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Raises:
        InputError: The disk refuses (full, read-only, no permission); nothing is left behind.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, indented for people; NaN and infinity are a ``ValueError``."""
    write_atomic(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: The file is absent or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"there is no {path}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); delete it, or rebuild it with force=true") from error


def complete(folder: Path) -> dict[str, Any] | None:
    """Return the card of a finished result, or None where there is none.

    Raises:
        InputError: There is a card, but it is damaged.
    """
    path = Path(folder) / CARD
    if not path.is_file():
        return None
    card = read_json(path)
    if not isinstance(card, dict):
        raise InputError(f"{path} is not a card (a JSON object); delete {folder}, or rebuild it with force=true")
    return card


@contextmanager
def publish(folder: Path, card: Mapping[str, Any]) -> Iterator[Path]:
    """Yield a temporary folder to fill; then write the card and move it to its final place.

    An older result at that place is replaced. If the block raises, nothing of it remains, and what was there before
    stays. Call it inside ``building(folder)``, which also removes what a killed process left.

    Raises:
        InputError: The disk refuses to write.
    """
    folder = Path(folder)
    temporary, replaced = (folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp") for _ in range(2))
    try:
        with _disk_errors(folder):
            temporary.mkdir(parents=True)
            yield temporary
            write_json(temporary / CARD, dict(card))
            _flush(temporary)
            if folder.exists():  # moved away whole: a folder being deleted must never look like a result
                folder.rename(replaced)
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def building(folder: Path) -> Iterator[None]:
    """Hold the lock of a result while it is built; a second process waits here, then finds it complete.

    Raises:
        InputError: The disk refuses to write the lock.
    """
    from filelock import FileLock, Timeout

    folder = Path(folder)
    with _disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(folder.parent.name, "waiting", f"another process is building {folder}")
            lock.acquire()
    try:
        for leftover in folder.parent.glob(f".{glob.escape(folder.name)}.{'[0-9a-f]' * 32}.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield
    finally:
        lock.release()


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turn what a disk refuses into one line; any other error is not the disk's fault, and passes.

    The libraries in Rust that write models and tokenizers raise kinds of their own, which end in ``(os error 28)``.
    """
    try:
        yield
    except Exception as error:
        in_rust = re.search(r"\(os error (\d+)\)", str(error))
        number = error.errno if isinstance(error, OSError) else int(in_rust[1]) if in_rust else None
        if number not in DISK_REFUSES:
            raise
        raise InputError(f"cannot write {folder}: {os.strerror(number)}") from error


def _flush(folder: Path) -> None:
    """Have the disk keep every file of a folder, before a rename says that it does."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
