"""What decides the content of a store, beside the model and the prompts: sites, positions, responses, labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from refusal import InputError
from refusal.activations.encoding import check_dtype
from refusal.models.refusal_score import REFUSAL_PHRASES
from refusal.models.sites import Site

POSITIONS = ("last", "last_instruction", "instruction", "template", "prompt")
RULES = ("phrases", "score", "both")
TOO_LONG = ("truncate", "refuse")


@dataclass(frozen=True)
class Recipe:
    """How activations are collected.

    Raises:
        InputError: A value is unknown, or two exclude each other.
    """

    sites: tuple[Site, ...]
    positions: tuple[str, ...] = ("last", "last_instruction", "instruction", "template")
    """Which prompt tokens become rows: the last one (always kept), the last of the instruction, all of the
    instruction, of the template after it, or of the whole ``prompt`` with BOS and the fixed text before."""
    response_positions: int = 0
    """The first so many response tokens become rows, too."""
    response_tokens: int = 16
    """Greatest length of the greedy responses; 0 asks for none."""
    refused_by: str = "phrases"
    """What makes a prompt refused: how its response begins, a positive refusal score, or both together."""
    phrases: tuple[str, ...] = REFUSAL_PHRASES
    """Openings by which a response counts as a refusal."""
    refusal_tokens: tuple[int, ...] | None = None
    """Tokens that open refusals; learnt from the calibration fold's responses if None."""
    max_rows: int = 2_000_000
    """Past it, each prompt gives a random sample of its rows."""
    writes: bool = True
    """Whether to keep what every component of every layer adds at the last position."""
    dtype: str = "float32"
    """Type on disk, ``float32`` or ``bfloat16``."""
    too_long: str = "truncate"
    """A prompt over the model's context loses the end of its instruction, or is refused and recorded as failed."""
    seed: int = 0
    """What the order of prompts and rows follows from."""

    def __post_init__(self) -> None:
        check_dtype(self.dtype)
        _check_each("collect.positions", self.positions, POSITIONS)
        _check_each("model.refused_by", [self.refused_by], RULES)
        _check_each("collect.too_long", [self.too_long], TOO_LONG)
        if self.response_positions > self.response_tokens:
            raise InputError(
                f"collect.response_positions={self.response_positions} is more than the responses have tokens; "
                f"raise model.response_tokens={self.response_tokens}"
            )
        if self.refusal_tokens is not None and not self.refusal_tokens:
            raise InputError("model.refusal_tokens is empty; leave it null to learn the tokens from the responses")
        if self.has_scores and not self.has_responses and self.refused_by != "score":
            raise InputError(
                f"model.refused_by={self.refused_by} needs responses: set model.refused_by=score, or "
                "model.response_tokens to 1 or more"
            )

    @property
    def has_responses(self) -> bool:
        """Whether the model answers."""
        return self.response_tokens > 0

    @property
    def has_scores(self) -> bool:
        """Whether there are refusal tokens: given, or to be learnt from responses."""
        return self.refusal_tokens is not None or self.has_responses

    @property
    def learns_tokens(self) -> bool:
        """Whether the refusal tokens come from the responses to the calibration fold."""
        return self.refusal_tokens is None and self.has_responses

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {**values, "sites": [str(site) for site in self.sites]}


def _check_each(option: str, values: Iterable[str], known: tuple[str, ...]) -> None:
    for value in values:
        if value not in known:
            raise InputError(f"{option}: unknown '{value}'; one of {', '.join(known)}")
