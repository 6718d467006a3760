"""A padded batch gives, row by row, what each prompt gives alone: every family, site, padding side and batch size."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from refusal.models.chat import ChatModel, Encoded
from refusal.models.hooks import reading
from refusal.models.sites import Site, choose
from refusal.models.suffix import suffix_batches
from tests.models.tiny import FAMILIES, N_LAYERS, prompts, tiny

SITES = choose([], N_LAYERS, preset="every")
PROMPTS = prompts([1 + (7 * i) % 23 for i in range(64)])  # 1 to 23 tokens, in a mixed order

ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""Greatest |padded - alone| / |alone| of a row. A bfloat16 has 8 significant bits: a rounding is off by at most
2^-8 = 0.004, and a row at the end of three blocks has gone through some 25; were all off the same way, that is 0.1."""


class Pass(NamedTuple):
    rows: dict[Site, list[Tensor]]
    """Of each prompt [n_tokens, d_model]."""
    logits: list[Tensor]
    """Of each prompt's last token [vocab]."""


@torch.no_grad()
def run(chat: ChatModel, batch: list[Encoded], side: str) -> Pass:
    padded = chat.pad(batch, side)
    with reading(chat.model, SITES) as read:
        logits = padded.at_last(chat.model(**padded.inputs(), logits_to_keep=padded.last_columns).logits)
    tokens = padded.attention_mask.bool()
    return Pass({site: [x[own] for x, own in zip(read[site], tokens, strict=True)] for site in SITES}, list(logits))


@cache
def each_alone(family: str, dtype: torch.dtype) -> Pass:
    """Run every prompt alone and unpadded."""
    chat, rows, logits = tiny(family, dtype), {site: [] for site in SITES}, []
    for prompt in PROMPTS:
        with torch.no_grad(), reading(chat.model, SITES) as read:
            logits.append(chat.model(torch.tensor([prompt.ids])).logits[0, -1])
        for site in SITES:
            rows[site].append(read[site][0])
    return Pass(rows, logits)


def error(actual: list[Tensor], expected: list[Tensor]) -> float:
    """The greatest of a row, relative to its length."""
    assert [x.shape for x in actual] == [x.shape for x in expected]
    pairs = zip(actual, expected, strict=True)
    return max(float(((a.float() - e.float()).norm(dim=-1) / e.float().norm(dim=-1)).max()) for a, e in pairs)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_no_row(family: str, side: str, dtype: torch.dtype) -> None:
    chat, alone = tiny(family, dtype), each_alone(family, dtype)
    for size in (2, 7, 64):  # alone, each is what it is compared with
        parts = [run(chat, PROMPTS[start : start + size], side) for start in range(0, len(PROMPTS), size)]
        for site in SITES:
            rows = [row for part in parts for row in part.rows[site]]
            assert error(rows, alone.rows[site]) <= ROUNDING[dtype], (size, str(site))
        assert error([row for part in parts for row in part.logits], alone.logits) <= ROUNDING[dtype], size


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_in_a_padded_batch_is_as_close_to_float32_as_alone(family: str) -> None:
    exact, alone = each_alone(family, torch.float32), each_alone(family, torch.bfloat16)
    padded = run(tiny(family, torch.bfloat16), PROMPTS, "right")
    for site in SITES:
        assert error(padded.rows[site], exact.rows[site]) <= 2 * error(alone.rows[site], exact.rows[site]), str(site)


@pytest.mark.parametrize("n_suffix", [1, 3, 8])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_end_of_a_prompt_run_again_from_the_cache_gives_the_same(family: str, n_suffix: int) -> None:
    """Also where a layer's cache has let go of what its sliding window (5 tokens) no longer sees."""
    chat, alone = tiny(family), each_alone(family, torch.float32)
    long = [i for i, prompt in enumerate(PROMPTS) if len(prompt.ids) > n_suffix]
    for batch in suffix_batches(chat, [PROMPTS[i] for i in long], n_suffix=n_suffix, batch_size=16):
        which = [long[i] for i in batch.index]
        for _ in range(2):  # a pass leaves the cache as it was
            with torch.no_grad(), reading(chat.model, SITES) as read:
                logits = batch.logits()
            for site in SITES:
                assert error(list(read[site]), [alone.rows[site][i][-n_suffix:] for i in which]) <= 1e-4, str(site)
            assert error(list(logits), [alone.logits[i] for i in which]) <= 1e-4
