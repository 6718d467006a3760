"""A chat model with its tokenizer: load it, put prompts into its chat template, and pad them on the left.

Every token of a templated prompt is marked: the fixed text before the instruction (``prefix``, and
``special`` for its special tokens such as BOS), the ``instruction`` itself, and the ``template`` text after it,
at whose last token the model decides how to answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from refusal import InputError

TOKEN_KINDS = ("prefix", "special", "instruction", "template")
PREFIX, SPECIAL, INSTRUCTION, TEMPLATE = range(4)

_SENTINEL = "\ue000"  # a private-use character that no template writes


class Encoded(NamedTuple):
    """One templated prompt."""

    ids: list[int]
    kinds: np.ndarray
    """Index into ``TOKEN_KINDS`` for each token, uint8 [n_tokens]."""

    @property
    def n_template(self) -> int:
        """Number of template tokens after the instruction."""
        return int((self.kinds == TEMPLATE).sum())


class Batch(NamedTuple):
    """Left-padded prompts; the last column is every prompt's last token."""

    input_ids: Tensor
    """[batch, seq]"""
    attention_mask: Tensor
    """[batch, seq], 0 on padding"""
    position_ids: Tensor
    """[batch, seq], counted from each prompt's own first token"""


@dataclass
class ChatModel:
    """A frozen causal language model, its tokenizer, and the name under which its results are kept."""

    model: Any
    tokenizer: Any
    name: str
    system_prompt: str | None = None

    def __post_init__(self) -> None:
        if not getattr(self.tokenizer, "chat_template", None):
            raise InputError(f"the model {self.name} has no chat template; use a chat (instruct) model")
        before, _, after = self._render(_SENTINEL).partition(_SENTINEL)
        if not after and not before:
            raise InputError(f"the chat template of {self.name} leaves the user's message out")
        self._before, self._after = before, after

    @property
    def n_layers(self) -> int:
        """Number of transformer blocks."""
        return self.model.config.num_hidden_layers

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.model.config.hidden_size

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return self.model.device

    def encode(self, text: str) -> Encoded:
        """Put one instruction into the chat template, up to where the response begins, and tokenize it."""
        rendered = self._render(text)
        start, stop = len(self._before), len(rendered) - len(self._after)
        tokens = self.tokenizer(rendered, add_special_tokens=False, return_offsets_mapping=True)
        ids = tokens["input_ids"]
        kinds = np.full(len(ids), INSTRUCTION, dtype=np.uint8)
        for i, (first, last) in enumerate(tokens["offset_mapping"]):
            if last <= start:
                kinds[i] = SPECIAL if ids[i] in self._special_ids else PREFIX
            elif first >= stop:
                kinds[i] = TEMPLATE
        return Encoded(list(ids), kinds)

    def pad(self, prompts: Sequence[Encoded]) -> Batch:
        """Pad prompts on the left to the longest, on the model's device."""
        width = max(len(prompt.ids) for prompt in prompts)
        ids = torch.full((len(prompts), width), self.pad_id)
        mask = torch.zeros((len(prompts), width), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt.ids) :] = torch.tensor(prompt.ids)
            mask[row, width - len(prompt.ids) :] = 1
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        return Batch(ids.to(self.device), mask.to(self.device), positions.to(self.device))

    @property
    def pad_id(self) -> int:
        """A token to pad with; the mask hides it, so any will do."""
        pad = self.tokenizer.pad_token_id
        return next(token for token in (pad, self.tokenizer.eos_token_id, 0) if token is not None)

    @property
    def end_ids(self) -> set[int]:
        """Tokens that end a response."""
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return {int(token) for token in (*ends, self.tokenizer.eos_token_id) if token is not None}

    @property
    def _special_ids(self) -> set[int]:
        return set(self.tokenizer.all_special_ids)

    def _render(self, text: str) -> str:
        messages = [{"role": "user", "content": text}]
        if self.system_prompt is not None:
            messages.insert(0, {"role": "system", "content": self.system_prompt})
        try:
            return self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        except Exception as error:
            raise InputError(f"the chat template of {self.name} cannot be used: {error}") from error


def load_chat_model(
    source: str | Path,
    *,
    name: str,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    attn_implementation: str | None = None,
    system_prompt: str | None = None,
) -> ChatModel:
    """Load a model folder, or a model of the Hugging Face hub, for inference.

    Args:
        source: A local folder (a ``Path``) or the model's name on the hub (a ``str``).
        name: Name under which its results are kept.
        revision: Branch, tag or commit on the hub.
        dtype: ``auto`` is float32 on a CPU and the model's own on a GPU.
        device: ``auto`` is the first GPU where there is one.
        attn_implementation: As in transformers; None lets it choose.
        system_prompt: Put before every prompt, where the template has a place for it.

    Raises:
        InputError: The model cannot be found, may not be downloaded, or has no chat template.
    """
    import transformers

    if isinstance(source, Path) and not (source / "config.json").is_file():
        raise InputError(f"there is no model in {source}: a model folder has a config.json")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto" and device == "cpu":
        dtype = "float32"
    options = {"attn_implementation": attn_implementation} if attn_implementation else {}
    with quiet_transformers(), _one_line(str(source)):
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, revision=revision)
        model = transformers.AutoModelForCausalLM.from_pretrained(source, revision=revision, dtype=dtype, **options)
    model.to(device)  # pyright: ignore[reportArgumentType]  its stub takes the class for the instance
    model.eval().requires_grad_(False)
    return ChatModel(model, tokenizer, name, system_prompt)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from drawing bars and repeating advice; errors still come."""
    import transformers

    logging = transformers.utils.logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


@contextlib.contextmanager
def _one_line(source: str) -> Iterator[None]:
    """Turn what the hub and transformers say of a model that cannot be had into one line."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
    from safetensors import SafetensorError

    try:
        yield
    except GatedRepoError as error:
        raise InputError(
            f"{source} is gated: accept its licence on its hub page, then log in with `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(f"there is no model {source} on the hub (or it is private: `hf auth login`)") from error
    except (OSError, ValueError, SafetensorError) as error:
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"cannot load the model {source}: {cause} (model=local model.path=DIR loads a folder)"
        ) from error
