from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from refusal import InputError
from refusal.activations import plan
from refusal.activations.buffer import ShardBuffer
from refusal.activations.collect import collect
from refusal.activations.recipe import Recipe
from refusal.models.chat import ChatModel
from refusal.models.sites import Site
from refusal.prompts.prompt import Prompt
from tests.activations.same_store import differences

RECIPE = Recipe((Site("mlp", 2),), response_tokens=4)


def test_nothing_is_published_after_a_write_that_failed(
    planted: tuple[ChatModel, list[Prompt]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "WAVE_PROMPTS", 20)
    chat, prompts = planted
    collect(chat, prompts, RECIPE, tmp_path / "whole", token_budget=64, card={})
    honest, calls = ShardBuffer.add, []

    def add(buffer: ShardBuffer, part: Any) -> None:
        calls.append(part)
        if len(calls) == 2:  # a disk that has room again a moment later cannot be had here
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        honest(buffer, part)

    monkeypatch.setattr(ShardBuffer, "add", add)
    with pytest.raises(InputError, match=r"cannot write in .*: No space left on device"):
        collect(chat, prompts, RECIPE, tmp_path / "store", token_budget=64, card={})
    assert len(calls) == 2
    assert not list((tmp_path / "store").glob("shard-*"))
    collect(chat, prompts, RECIPE, tmp_path / "store", token_budget=64, card={})
    assert differences(tmp_path / "whole", tmp_path / "store") == []
