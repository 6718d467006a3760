from __future__ import annotations

from pathlib import Path

import pytest

from refusal import InputError
from refusal.prompts.xstest import read_xstest

TYPES = (
    *("homonyms", "figurative_language", "safe_targets", "safe_contexts", "definitions", "historical_events"),
    *("nons_group_real_discr", "real_group_nons_discr", "privacy_public", "privacy_fictional"),
)
CONTRASTS = tuple(f"contrast_{name}" for name in (*TYPES[:6], "discr", "privacy"))


def write(path: Path, kinds: tuple[str, ...]) -> Path:
    """Write a file with a prompt of each type, with the columns of the published one."""
    rows = [f"{i},How about {kind}?,{kind},safe,focus,note" for i, kind in enumerate(kinds, start=1)]
    path.write_text("\n".join(["id,prompt,type,label,focus,note", *rows]))
    return path


def test_what_looks_harmful_is_hard_and_its_contrast_toxic(tmp_path: Path) -> None:
    prompts = read_xstest(write(tmp_path / "xstest_prompts.csv", (*TYPES, *CONTRASTS)))
    assert [prompt.split for prompt in prompts] == ["hard"] * 10 + ["toxic"] * 8
    assert prompts[0].text == "How about homonyms?"
    assert [prompt.category for prompt in prompts[6:10]] == ["discrimination"] * 2 + ["privacy"] * 2


def test_every_category_has_both_sides(tmp_path: Path) -> None:
    prompts = read_xstest(write(tmp_path / "xstest_prompts.csv", (*TYPES, *CONTRASTS)))
    hard, toxic = ({p.category for p in prompts if p.split == split} for split in ("hard", "toxic"))
    assert hard == toxic == {*TYPES[:6], "discrimination", "privacy"}


def test_another_type_is_named_with_its_row(tmp_path: Path) -> None:
    path = write(tmp_path / "xstest_prompts.csv", ("homonyms", "contrast_homonym"))
    with pytest.raises(InputError) as caught:
        read_xstest(path)
    assert str(caught.value) == (f"{path}, row 3, column type: XSTest has no type 'homonym' (did you mean 'homonyms'?)")
