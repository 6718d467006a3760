"""The chat template: system prompt, thinking, dates; special tokens, and prompts that are too long."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import BPE
from transformers import AddedToken, PreTrainedTokenizerFast

from refusal import InputError
from refusal.models.chat import ChatModel
from refusal.models.tokens import INSTRUCTION, PREFIX, SPECIAL, TEMPLATE

PLAIN = "<s>u:{{ messages[-1]['content'] }}.\n<end>a:"
LETTERS = "abu: ."


def chat(template: str = PLAIN, **options: Any) -> ChatModel:
    """A tokenizer of letters in which a full stop and a line's end are one token, without a model."""
    words = {token: i for i, token in enumerate([*LETTERS, "\n", ".\n"])}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE(words, [(".", "\n")])), bos_token="<s>")
    tokenizer.backend_tokenizer.decoder = Fuse()
    tokenizer.add_tokens([AddedToken("<end>", special=True)])  # marked special, but no named one
    tokenizer.chat_template = template
    return ChatModel(None, tokenizer, "tiny", **options)


def test_special_tokens_are_marked_wherever_they_stand() -> None:
    encoded = chat(PLAIN.replace(".\n", "\n")).encode("ab<end>a")
    assert encoded.is_special.tolist() == [True, *[False] * 4, True, *[False] * 2, True, *[False] * 2]
    assert encoded.kinds.tolist() == [SPECIAL, *[PREFIX] * 2, *[INSTRUCTION] * 4, *[TEMPLATE] * 4]


def test_a_long_prompt_loses_the_end_of_its_instruction() -> None:
    whole, cut = chat().encode("abab"), chat().encode("abab", 9)
    assert (len(whole.ids), whole.truncated) == (11, 0)
    assert (len(cut.ids), cut.truncated) == (9, 2)
    assert chat().tokenizer.decode(cut.ids) == "<s>u:ab.\n<end>a:"
    assert chat().encode("abab", 11).ids == whole.ids


@given(st.text(LETTERS, max_size=12), st.integers(1, 25))
def test_what_is_before_and_after_the_instruction_is_never_cut(text: str, max_tokens: int) -> None:
    model = chat()
    whole = model.encode(text)
    try:
        cut = model.encode(text, max_tokens)
    except InputError:  # nothing of the instruction would be left
        assert max_tokens < len(whole.ids)
        assert max_tokens <= len(model.encode("").ids)
        return
    assert len(cut.ids) == min(max_tokens, len(whole.ids))
    assert cut.truncated == len(whole.ids) - len(cut.ids)
    assert len(cut.kinds) == len(cut.is_special) == len(cut.ids)
    kept = text[: len(text) - cut.truncated]
    assert model.tokenizer.decode(cut.ids) == f"<s>u:{kept}.\n<end>a:"


def test_a_template_without_room_for_an_instruction_is_one_line() -> None:
    with pytest.raises(InputError, match="the chat template of tiny alone fills 7 tokens; no instruction fits"):
        chat().encode("abab", 7)


REFUSES_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            REFUSES_SYSTEM + PLAIN,
            "the chat template of tiny cannot be used: System role not supported; if it takes no system prompt, "
            "set model.system_prompt=null",
        ),
        (PLAIN, "the chat template of tiny leaves the system prompt out; set model.system_prompt=null"),
    ],
)
def test_a_template_that_takes_no_system_prompt_is_one_line(template: str, expected: str) -> None:
    assert chat(template).encode("a").ids  # without one it can be used
    with pytest.raises(InputError) as caught:
        chat(template, system_prompt="be kind")
    assert str(caught.value) == expected


def test_a_system_prompt_is_part_of_the_prefix() -> None:
    encoded = chat("{% for m in messages %}u:{{ m['content'] | trim }}{% endfor %}a:", system_prompt=" bb ").encode("a")
    assert encoded.kinds.tolist() == [*[PREFIX] * 6, INSTRUCTION, *[TEMPLATE] * 2]


@pytest.mark.parametrize(("template", "reason"), [("{% if %}", "Expected an expression"), ("{{ x.y }}", "undefined")])
def test_a_broken_template_is_one_line(template: str, reason: str) -> None:
    with pytest.raises(InputError, match=f"^the chat template of tiny cannot be used: .*{reason}"):
        chat(template)


def test_thinking_is_off_unless_it_is_asked_for() -> None:
    template = PLAIN + "{% if enable_thinking is defined and not enable_thinking %}bb{% endif %}"
    assert chat(template).encode("a").n_template == chat(template, thinking=True).encode("a").n_template + 2


def test_a_template_that_names_the_day_names_the_same_one_tomorrow() -> None:
    named = "{{ strftime_now('%d %b %Y') | replace('26 Jul 2024', 'a') }}"
    assert chat(named + PLAIN).encode("a").ids == chat("a" + PLAIN).encode("a").ids


def test_a_line_that_opens_a_template_stays() -> None:
    assert chat("\n" + PLAIN).tokenizer.decode(chat("\n" + PLAIN).encode("a").ids).startswith("\n<s>")
