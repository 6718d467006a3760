"""A folder that appears whole or not at all, and never in the place of another."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from refusal import InputError


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; then it is moved to its place. If the block raises, nothing remains.

    Raises:
        InputError: There is something at that place, or the disk refuses.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder} exists already; give another place, or delete it")
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.rename(folder)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
