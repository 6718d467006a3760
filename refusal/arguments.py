"""The command line of ``python -m refusal...``: a mistake of any kind is one line, and the exit status 1."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import NoReturn

from refusal import InputError

Main = Callable[[Sequence[str] | None], int]


class Parser(argparse.ArgumentParser):
    """An argument parser that leaves its texts as they are, and raises its errors as ``InputError``."""

    def __init__(self, module: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=f"python -m {module}",
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise InputError(f"{message}; see --help")


def command(main: Main) -> Callable[..., int]:
    """Make a function from arguments to an exit status print an ``InputError`` as one line, and return 1."""

    @wraps(main)
    def run(arguments: Sequence[str] | None = None) -> int:
        try:
            return main(arguments)
        except InputError as error:
            from refusal.terminal import plain  # of rich, which nothing needs that goes well

            print(f"error: {plain(str(error))}", file=sys.stderr)
            return 1

    return run
