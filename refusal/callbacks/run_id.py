"""The id of a job's W&B run, kept until the job has ended well: begun again, the job goes on in the same run.

What was killed goes on where it was, by the checkpoints of its trainings and the shards of its collection; so do its
curves. The ids stand in ``OUTPUT_DIR/wandb/unfinished``, named by the job's options. An offline run that goes on is a
second folder with the same id: ``wandb sync --append`` adds it to what was sent of the first.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from refusal.artifacts import fingerprint, write_atomic


class RunId:
    """The id of a new run, or of the one that the same job has left unfinished.

    Args:
        folder: Where ids are kept.
        options: What makes the job this very one.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        self._path = folder / fingerprint(options)
        self._lock = FileLock(self._path.with_suffix(".lock"))
        self.value = uuid.uuid4().hex[:8]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:  # the same job runs at this moment: the run is its own
            return
        if self._path.is_file():
            self.value = self._path.read_text()
        else:
            write_atomic(self._path, self.value)

    def close(self, *, is_done: bool) -> None:
        """Forget the id of a job that has ended well; the next one like it is a run of its own."""
        if is_done and self._lock.is_locked:
            self._path.unlink(missing_ok=True)
        self._lock.release()
