from __future__ import annotations

from collections import Counter

from refusal.prompts.mini import mini_folder
from refusal.prompts.orbench import read_orbench
from refusal.prompts.prompt import CATEGORIES
from refusal.prompts.select import with_folds


def test_the_shipped_files_hold_what_the_attribution_says() -> None:
    prompts = read_orbench(mini_folder())
    assert Counter(prompt.split for prompt in prompts) == {"safe": 1084, "hard": 1319, "toxic": 654}
    assert {prompt.category for prompt in prompts} == set(CATEGORIES)
    attribution = (mini_folder() / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for words in ("CC-BY-4.0", "Cui", "1,084", "1,319", "654", "left out"):
        assert words in attribution


def test_the_shipped_files_can_be_divided() -> None:
    prompts = with_folds(read_orbench(mini_folder()), seed=0)
    sizes = Counter(prompt.fold for prompt in prompts)
    assert max(sizes.values()) - min(sizes.values()) <= 30  # one at most in each of 30 strata
    texts = {fold: {prompt.text for prompt in prompts if prompt.fold == fold} for fold in sizes}
    assert not texts["train"] & texts["heldout"]
    assert not texts["calibration"] & (texts["train"] | texts["heldout"])
