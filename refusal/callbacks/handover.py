"""The file in a run's folder by which callbacks, and at last the command, learn what a job has done.

``outcome.json`` has ``command``, ``overrides``, ``status`` (``started``, ``done`` or ``failed``), ``error`` (one line),
and what the task (``result``) and each step returned.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from refusal import InputError
from refusal.artifacts import read_json, write_json

OUTCOME = "outcome.json"
_UNWRITTEN: dict[Path, dict[str, Any]] = {}
"""Outcomes that a full disk did not take, by folder: this process knows them all the same, and can say them."""


def job_folder(config: DictConfig) -> Path:
    """Return the folder of the job that a callback is told of."""
    return Path(config.hydra.runtime.output_dir)


def note(folder: Path, **facts: object) -> None:
    """Add facts to a job's outcome."""
    outcome = {**read(folder), **{name: _plain(value) for name, value in facts.items()}}
    try:
        write_json(folder / OUTCOME, outcome)
        _UNWRITTEN.pop(folder, None)
    except InputError:
        _UNWRITTEN[folder] = outcome


def read(folder: Path) -> dict[str, Any]:
    """Return a job's outcome so far, empty where there is none."""
    if folder in _UNWRITTEN:
        return _UNWRITTEN[folder]
    return read_json(folder / OUTCOME) if (folder / OUTCOME).is_file() else {}


def _plain(value: object) -> object:
    """Paths and what holds them, as JSON can keep them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def one_line(error: BaseException) -> str:
    """Return an error's message in one line; an ``InputError`` needs no name."""
    message = " ".join(str(error).split())
    if isinstance(error, InputError):
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


@contextmanager
def failing(job_return: JobReturn) -> Iterator[None]:
    """Mark the job as failed if the block raises; Hydra would only warn."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  nothing is lost: the outcome reports it
        job_return.status = JobStatus.FAILED
        job_return.return_value = error


def is_first_process() -> bool:
    """Whether this is not one of the further processes of a distributed training, which run the same script."""
    return os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("NODE_RANK", "0") == "0"
