"""Of what kind a token is: where it stands in a templated prompt, or that the model said it. Free of torch."""

from __future__ import annotations

TOKEN_KINDS = ("prefix", "special", "instruction", "template", "response")
"""The fixed text before the instruction and its special tokens such as BOS; the instruction; the template text after
it, at whose last token the model decides how to answer; the response."""
PREFIX, SPECIAL, INSTRUCTION, TEMPLATE, RESPONSE = range(5)
