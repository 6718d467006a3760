"""A planted model, written once."""

from pathlib import Path

import pytest

from refusal.models.chat import ChatModel, load_chat_model
from refusal.models.planted import write_planted
from refusal.models.planted_plan import Plan
from refusal.prompts.planted import make_vocabulary, planted_prompts
from refusal.prompts.prompt import Prompt


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    folder: Path = tmp_path_factory.mktemp("planted")
    write_planted(folder, make_vocabulary(), Plan())
    return load_chat_model(folder, name="planted")


@pytest.fixture(scope="session")
def prompts() -> list[Prompt]:
    return planted_prompts(make_vocabulary(), n_safe=3, n_hard=3, n_toxic=3)
