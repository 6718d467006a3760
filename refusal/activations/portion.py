"""Which portion of a collection one process does, where several share it: ``shard=3/16`` is the third of sixteen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from refusal import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Portion:
    """One of several equal parts."""

    number: int
    """From 1."""
    count: int

    def of(self, items: Sequence[T]) -> list[T]:
        """Return every ``count``-th of the items, from the ``number``-th: each item is in one portion."""
        return list(items[self.number - 1 :: self.count])

    def gpu(self, n_gpus: int) -> int:
        """Return which GPU of a machine to use: portions take them by turns."""
        return (self.number - 1) % n_gpus

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse_portion(text: str) -> Portion:
    """Parse ``3/16``.

    Raises:
        InputError: It is not two numbers, or there is no such part.
    """
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    number, count = (int(digits) for digits in match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise InputError(f"shard={text}: give a part and the number of parts, such as shard=3/16 (1/16 to 16/16)")
    return Portion(number, count)
