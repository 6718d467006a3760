"""Of which kinds of tokens a collection keeps rows; known before torch is, so that a mistake costs no collection."""

from __future__ import annotations

from collections.abc import Collection

from refusal import InputError
from refusal.models.tokens import TOKEN_KINDS


def kept_kinds(positions: Collection[str], response_positions: int) -> list[str]:
    """Return the kinds of the rows that a collection of these positions keeps, the last ones aside."""
    kept = set(positions)
    if "prompt" in kept:
        kept.update(set(TOKEN_KINDS) - {"response"})
    if "last_instruction" in kept:
        kept.add("instruction")
    if response_positions:
        kept.add("response")
    return [kind for kind in TOKEN_KINDS if kind in kept]


def check_kinds(kinds: Collection[str], kept: Collection[str]) -> None:
    """Raise an ``InputError`` unless rows of all these kinds are kept."""
    for kind in kinds:
        if kind not in TOKEN_KINDS:
            raise InputError(f"sampler.kinds: unknown '{kind}'; one of {', '.join(TOKEN_KINDS)}")
        if kind not in kept:
            raise InputError(
                f"sampler.kinds asks for {kind} rows, which the activations do not hold; set sampler.kinds to some of "
                f"[{', '.join(kept)}], or collect more with collect.positions or collect.response_positions"
            )
