"""What a finished result on disk is: a folder whose ``card.json`` was written last.

A stage builds its result in a temporary folder beside the final place and publishes it by one rename, so
that a result is either whole or absent. The card says what made it; the fingerprint in the folder's name
covers everything that changes the content, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refusal import InputError
from refusal.progress import say

CARD = "card.json"


def fingerprint(content: Mapping[str, Any]) -> str:
    """Return 12 hexadecimal digits that name this content: the SHA-256 of its canonical JSON."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file: Any) -> str:
    """Python 3.10's stand-in for ``hashlib.file_digest``."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def clean_name(text: str) -> str:
    """Return the text as one safe path component: letters, digits, ``.``, ``_`` and ``-``, never hidden or empty."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip(".")[:120]
    return name or "_"


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Raises:
        InputError: The disk refuses (full, read-only, no permission); nothing is left behind.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


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
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); delete it, or rebuild it with force=true") from error


def complete(folder: Path) -> dict[str, Any] | None:
    """Return the card of a finished result, or None where there is none."""
    card = Path(folder) / CARD
    return read_json(card) if card.is_file() else None


@contextmanager
def publish(folder: Path, card: Mapping[str, Any]) -> Iterator[Path]:
    """Yield a temporary folder to fill; then write the card and move it to its final place.

    An older result at that place is replaced. If the block raises, nothing of it remains.

    Raises:
        InputError: The disk refuses to write.
    """
    folder = Path(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise InputError(f"cannot write in {folder.parent}: {error.strerror or error}") from error
    try:
        yield temporary
        write_json(temporary / CARD, dict(card))
        temporary.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def building(folder: Path) -> Iterator[None]:
    """Hold the lock of a result while it is built; a second process waits here, then finds it complete."""
    from filelock import FileLock, Timeout

    folder = Path(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.parent / f".{folder.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(folder.parent.name, "waiting", f"another process is building {folder}")
            lock.acquire()
    except OSError as error:
        raise InputError(f"cannot write in {folder.parent}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()
