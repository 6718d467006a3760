"""Fill the disk while a collection runs, then make room and run it again.

Run as ``python -m tests.pipeline.full_disk DISK OUT ARGUMENTS``, where DISK is a small file system of its own, which
is mounted for this process alone; what is to be looked at afterwards is copied to OUT.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.pipeline.whole import command, finish, start

SHARDS = (".h5", ".unscored")


def main(disk: Path, out: Path, *arguments: str) -> None:
    """Leave ``done.json`` with what both runs said, and the stores ``full`` and ``resumed``."""
    process = start(disk, "collect", *arguments)
    while not (published := [path for path in disk.glob("outputs/*/activations/*/shard-*") if path.suffix in SHARDS]):
        time.sleep(0.001)
    _fill(disk / "ballast")
    failed, store = finish(process), published[0].parent
    shutil.copytree(store, out / "full")
    (disk / "ballast").unlink()
    resumed = command(disk, "collect", *arguments)
    shutil.copytree(store, out / "resumed")
    (out / "done.json").write_text(json.dumps([failed, resumed]))


def _fill(ballast: Path) -> None:
    """Take all the room there is, down to the last blocks."""
    with ballast.open("wb") as file:
        for size in (1 << 20, 1 << 12):
            with suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
