"""A chat model without its weights: enough to encode prompts as the model would, and to count what they will give."""

from __future__ import annotations

from pathlib import Path

import torch

from refusal.artifacts import read_json
from refusal.models.chat import ChatModel, quiet_transformers
from refusal.models.files import hub_in_one_line

WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def has_weights(source: Path | str, revision: str | None = None) -> bool:
    """Whether a model's weights are on this machine: in its folder, or every file of them in the hub's cache."""
    for name in WEIGHTS:
        index = _cached(source, f"{name}.index.json", revision)
        names = set(read_json(index)["weight_map"].values()) if index else {name}
        if all(_cached(source, name, revision) for name in names):
            return True
    return False


def load_weightless(
    source: Path | str,
    *,
    name: str,
    revision: str | None = None,
    system_prompt: str | None = None,
    chat_template: str | None = None,
    thinking: bool = False,
) -> ChatModel:
    """Load tokenizer and configuration of a model; arguments and errors as of ``load_chat_model``."""
    import transformers

    with quiet_transformers(), hub_in_one_line(str(source)):
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, revision=revision)
        config = transformers.AutoConfig.from_pretrained(source, revision=revision)
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return ChatModel(model, tokenizer, name, system_prompt, thinking)


def _cached(source: Path | str, name: str, revision: str | None) -> Path | None:
    """Where a file of the model is on this machine, if it is."""
    if isinstance(source, Path):
        return source / name if (source / name).is_file() else None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source, name, revision=revision)
    return Path(found) if isinstance(found, str) else None
