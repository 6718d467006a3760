"""Read back the files of offline W&B runs: records of protocol buffers in a LevelDB log of 32 KiB blocks."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK = 32_768
FILE_HEADER, RECORD_HEADER = 7, 7


@dataclass
class Run:
    """What an offline run says."""

    id: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    tags: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    logged: dict[str, Any] = field(default_factory=dict)
    artifacts: list[str] = field(default_factory=list)
    exit_code: int | None = None


def read_runs(output_dir: Path) -> list[Run]:
    """Return the runs of an output folder, in the order in which they started, once all of them are on disk."""
    deadline = time.monotonic() + 20
    while True:  # wandb's own process writes the end of a run a moment after it is finished here
        found = [read_run(path) for path in output_dir.glob("wandb/offline-run-*/*.wandb")]
        if all(run.exit_code is not None for _, run in found) or time.monotonic() > deadline:
            return [run for _, run in sorted(found, key=lambda pair: pair[0])]
        time.sleep(0.05)


def read_run(path: Path) -> tuple[float, Run]:
    """Return when the run started, and the run."""
    run, started = Run(), 0.0
    make: Any = wandb_internal_pb2
    for data in _records(path.read_bytes()):
        record = make.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            started = record.run.start_time.ToNanoseconds()
            run.id = record.run.run_id
            run.name, run.group, run.job_type = record.run.display_name, record.run.run_group, record.run.job_type
            run.tags = tuple(record.run.tags)
            run.config.update(_items(record.run.config.update))
        elif kind == "config":
            run.config.update(_items(record.config.update))
        elif kind == "summary":
            run.summary.update(_items(record.summary.update))
        elif kind == "history":
            run.logged.update(_items(record.history.item))
        elif kind == "artifact":
            run.artifacts.append(record.artifact.name)
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return started, run


def _items(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(data: bytes) -> Iterator[bytes]:
    position, parts = FILE_HEADER, b""
    while position + RECORD_HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < RECORD_HEADER:
            position += left
            continue
        length, kind = struct.unpack("<HB", data[position + 4 : position + RECORD_HEADER])
        parts += data[position + RECORD_HEADER : position + RECORD_HEADER + length]
        position += RECORD_HEADER + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""
