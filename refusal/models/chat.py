"""A chat model with its tokenizer: load it, put prompts into its chat template, and pad them to a batch.

Every token of a templated prompt is marked: the fixed text before the instruction (``prefix``, and
``special`` for its special tokens such as BOS), the ``instruction`` itself, and the ``template`` text after it,
at whose last token the model decides how to answer.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from refusal import InputError
from refusal.models.files import hub_in_one_line
from refusal.models.tokens import INSTRUCTION, PREFIX, SPECIAL, TEMPLATE

_SENTINEL = "\ue000"  # a private-use character that no template writes
# Some templates name the day's date, and a prompt would be another one tomorrow. This is what Llama 3's fall back to.
_EVERY_DAY = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}\n"


class Encoded(NamedTuple):
    """One templated prompt."""

    ids: list[int]
    kinds: np.ndarray
    """Index into ``TOKEN_KINDS`` for each token, uint8 [n_tokens]."""
    is_special: np.ndarray
    """Whether each token is a special one of the tokenizer, wherever it stands, bool [n_tokens]."""
    truncated: int = 0
    """Number of tokens that were cut from the instruction's end."""

    @property
    def n_template(self) -> int:
        """Number of template tokens after the instruction."""
        return int((self.kinds == TEMPLATE).sum())


class Batch(NamedTuple):
    """Padded prompts."""

    input_ids: Tensor
    """[batch, seq]"""
    attention_mask: Tensor
    """[batch, seq], 0 on padding"""
    position_ids: Tensor
    """[batch, seq], counted from each prompt's own first token"""
    last: Tensor
    """Column of each prompt's last token, [batch]; with padding on the left, the last column for all."""

    def inputs(self) -> dict[str, Tensor]:
        """Return what the model is called with."""
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
        }

    @property
    def last_columns(self) -> Tensor:
        """The columns in which some prompt ends, ascending: ``logits_to_keep``, as the head runs on whole columns."""
        return self.last.unique()

    def at_last(self, logits: Tensor) -> Tensor:
        """Pick each prompt's last token, float32 [batch, vocab], from logits at the ``last_columns``."""
        place = torch.searchsorted(self.last_columns, self.last).to(logits.device)
        return logits[torch.arange(len(place), device=logits.device), place].float()


@dataclass
class ChatModel:
    """A frozen causal language model, its tokenizer, and the name under which its results are kept."""

    model: Any
    tokenizer: Any
    name: str
    system_prompt: str | None = None
    thinking: bool = False
    """Whether a template that can let the model think before it answers does so."""
    padding_side: str = "left"
    """Where ``pad`` puts the padding, unless told otherwise: ``left`` or ``right``."""

    def __post_init__(self) -> None:
        if not getattr(self.tokenizer, "chat_template", None):
            raise InputError(
                f"the model {self.name} has no chat template; use a chat (instruct) model, or give model.chat_template"
            )
        before, _, after = self._render(_SENTINEL).partition(_SENTINEL)
        if not after and not before:
            raise InputError(f"the chat template of {self.name} leaves the user's message out")
        if self.system_prompt is not None and self.system_prompt.strip() not in before + after:
            raise InputError(
                f"the chat template of {self.name} leaves the system prompt out; set model.system_prompt=null"
            )
        self._before, self._after = before, after

    @property
    def n_layers(self) -> int:
        """Number of transformer blocks."""
        return self._text_config.num_hidden_layers

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self._text_config.hidden_size

    @property
    def context(self) -> int | None:
        """Greatest number of tokens that the model was made for; None if it does not say."""
        return getattr(self._text_config, "max_position_embeddings", None)

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return self.model.device

    def encode(self, text: str, max_tokens: int | None = None) -> Encoded:
        """Put one instruction into the chat template, up to where the response begins, and tokenize it.

        Args:
            text: The instruction.
            max_tokens: A longer prompt loses tokens at the end of the instruction; what is before and after it stays.

        Raises:
            InputError: Not even one token of the instruction fits.
        """
        rendered = self._render(text)
        start, stop = len(self._before), len(rendered) - len(self._after)
        tokens = self.tokenizer(rendered, add_special_tokens=False, return_offsets_mapping=True)
        ids = np.array(tokens["input_ids"], dtype=np.int64)
        first, last = np.array(tokens["offset_mapping"], dtype=np.int64).reshape(-1, 2).T
        is_special = np.isin(ids, sorted(self.special_ids))
        kinds = np.full(len(ids), INSTRUCTION, dtype=np.uint8)
        kinds[first >= stop] = TEMPLATE
        kinds[last <= start] = PREFIX
        kinds[(last <= start) & is_special] = SPECIAL
        inside = np.flatnonzero((kinds == INSTRUCTION) & (first >= start) & (last <= stop))
        over = 0 if max_tokens is None else max(0, len(ids) - max_tokens)
        if over and over >= len(inside):
            raise InputError(f"the chat template of {self.name} alone fills {max_tokens} tokens; no instruction fits")
        keep = np.delete(np.arange(len(ids)), inside[len(inside) - over :])
        return Encoded(ids[keep].tolist(), kinds[keep], is_special[keep], over)

    def pad(self, prompts: Sequence[Encoded], side: str | None = None) -> Batch:
        """Pad prompts to the longest, on the model's device.

        Args:
            prompts: At least one.
            side: ``left`` or ``right``; None is the model's ``padding_side``.
        """
        lengths = [len(prompt.ids) for prompt in prompts]
        width = max(lengths)
        on_left = (side or self.padding_side) == "left"
        ids = torch.full((len(prompts), width), self.pad_id)
        mask = torch.zeros((len(prompts), width), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            at = slice(width - lengths[row], None) if on_left else slice(lengths[row])
            ids[row, at] = torch.tensor(prompt.ids)
            mask[row, at] = 1
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        last = torch.full((len(prompts),), width - 1) if on_left else torch.tensor(lengths) - 1
        return Batch(*(x.to(self.device) for x in (ids, mask, positions, last)))

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

    @cached_property
    def special_ids(self) -> set[int]:
        """The tokenizer's named special tokens (BOS, EOS), and those it only marks as special (Llama 3's headers)."""
        added = self.tokenizer.added_tokens_decoder
        return {*self.tokenizer.all_special_ids, *(token for token, text in added.items() if text.special)}

    @property
    def _text_config(self) -> Any:
        return self.model.config.get_text_config()

    def _render(self, text: str) -> str:
        messages = [{"role": "user", "content": text}]
        if self.system_prompt is not None:
            messages.insert(0, {"role": "system", "content": self.system_prompt})
        try:
            return self.tokenizer.apply_chat_template(
                messages,
                chat_template=_EVERY_DAY + self.tokenizer.get_chat_template(),
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=self.thinking,
            )
        except Exception as error:
            advice = (
                "" if self.system_prompt is None else "; if it takes no system prompt, set model.system_prompt=null"
            )
            raise InputError(f"the chat template of {self.name} cannot be used: {error}{advice}") from error


def load_chat_model(
    source: str | Path,
    *,
    name: str,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | None = None,
    attn_implementation: str | None = None,
    padding_side: str = "left",
    system_prompt: str | None = None,
    chat_template: str | None = None,
    thinking: bool = False,
) -> ChatModel:
    """Load a model folder, or a model of the Hugging Face hub, for inference.

    Args:
        source: A local folder (a ``Path``) or the model's name on the hub (a ``str``).
        name: Name under which its results are kept.
        revision: Branch, tag or commit on the hub.
        dtype: ``auto`` is float32 on a CPU and the model's own on a GPU.
        device: ``auto`` is the first GPU where there is one.
        device_map: How accelerate spreads the model over several devices, instead of ``device``.
        attn_implementation: As in transformers; None lets it choose.
        padding_side: ``left`` or ``right``.
        system_prompt: Put before every prompt, where the template has a place for it.
        chat_template: Text of a Jinja template in the place of the tokenizer's own.
        thinking: Whether a template that can let the model think before it answers does so.

    Raises:
        InputError: The model cannot be found, may not be downloaded, or has no usable chat template.
    """
    import transformers

    if isinstance(source, Path) and not (source / "config.json").is_file():
        raise InputError(f"there is no model in {source}: a model folder has a config.json")
    has_gpu = torch.cuda.is_available()
    if device_map is not None:
        _check_device_map(device_map, device)
    else:
        device = ("cuda" if has_gpu else "cpu") if device == "auto" else device
        _check_device(device)
    if dtype == "auto" and (device == "cpu" or (device_map is not None and not has_gpu)):
        dtype = "float32"
    wishes = {"attn_implementation": attn_implementation, "device_map": device_map}
    options = {option: value for option, value in wishes.items() if value is not None}
    with quiet_transformers(), hub_in_one_line(str(source), revision):
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, revision=revision)
        model = transformers.AutoModelForCausalLM.from_pretrained(source, revision=revision, dtype=dtype, **options)
        if device_map is None:
            model.to(device)  # pyright: ignore[reportArgumentType]  its stub takes the class for the instance
    model.eval().requires_grad_(False)
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return ChatModel(model, tokenizer, name, system_prompt, thinking, padding_side)


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


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # no such device, no driver, or a torch without it
        raise InputError(f"model.device={device} cannot be used here: {str(error).splitlines()[0]}") from error


def _check_device_map(device_map: str, device: str) -> None:
    if device != "auto":
        raise InputError(f"model.device_map={device_map} and model.device={device} exclude each other; leave one out")
    if importlib.util.find_spec("accelerate") is None:
        raise InputError(f"model.device_map={device_map} needs accelerate: pip install accelerate")
