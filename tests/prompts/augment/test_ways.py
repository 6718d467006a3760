"""Each kind, on texts whose rewordings can be written down."""

from __future__ import annotations

import string
from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal.prompts.augment import case, kinds, paraphrase, politeness, punctuation


@given(st.sampled_from(kinds()), st.text())
def test_a_rewording_follows_from_the_text_alone(kind: str, text: str) -> None:
    ways = import_module(f"refusal.prompts.augment.{kind}").ways
    assert ways(text) == ways(text)
    assert all(name.isidentifier() for name in ways(text))


@given(st.text())
def test_frames_and_polite_words_hold_the_text_as_it_is(text: str) -> None:
    for reworded in (*paraphrase.ways(text).values(), *politeness.ways(text).values()):
        assert text in reworded
        assert reworded != text


def test_cases() -> None:
    assert case.ways("Don't  ask\nWHY me?") == {
        "lower": "don't  ask\nwhy me?",
        "upper": "DON'T  ASK\nWHY ME?",
        "title": "Don't  Ask\nWHY Me?",
    }


@pytest.mark.parametrize("text", ["Say it", "Say it.", "Say it?!", "Say it \u2026\n"])
def test_the_last_mark_is_dropped_or_another(text: str) -> None:
    assert set(punctuation.ways(text).values()) == {"Say it", "Say it.", "Say it?", "Say it!", "Say it..."}


@given(st.text(string.ascii_letters + " ,;", min_size=1).filter(str.strip))
def test_marks_inside_stay(text: str) -> None:
    assert punctuation.ways(f"{text}.")["none"] == text.rstrip()


def test_marks_alone_are_no_text() -> None:
    assert punctuation.ways("?!") == {}
