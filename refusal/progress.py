"""What a person sees while a command works: one line a stage, and a bar on anything over two seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

BAR_AFTER_SECONDS = 2.0


def say(stage: str, state: str, where: object) -> None:
    """Print a stage's one line: its name, ``built``, ``resumed`` or ``found``, and the path of the result."""
    print(f"{stage:<14}{state:<9}{where}", flush=True)


def warn(text: str) -> None:
    """Print one line of warning to stderr."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items; on a terminal a progress bar appears once two seconds have passed."""
    if not sys.stderr.isatty():
        yield from items
        return
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task(description, total=total)
    start, shown = time.monotonic(), False
    try:
        for item in items:
            yield item
            bar.advance(task)
            if not shown and time.monotonic() - start > BAR_AFTER_SECONDS:
                bar.start()
                shown = True
    finally:
        if shown:
            bar.stop()
