"""More prompts from those that there are, reworded without another meaning; one file a kind, each with one function.

    ways(text) -> dict[str, str]    the reworded texts by the name of the way, such as ``upper``

A new kind is a new file here; ``data.augment`` names files. Of each kind, a prompt gets the text of one of its ways,
drawn by the seed. What is made stays with its source: same category, split and fold. It is there to train
autoencoders on; circuits are found and compared on originals only, which alone are independent of each other.
"""

from __future__ import annotations

import hashlib
import pkgutil
import random
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module

from refusal import InputError
from refusal.prompts.prompt import Prompt
from refusal.prompts.rows import guess


def kinds() -> list[str]:
    """Return the names that ``data.augment`` can have."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def augmented(prompts: Sequence[Prompt], names: Sequence[str], seed: int) -> list[Prompt]:
    """Return the prompts, and after them what is made of them.

    No text comes twice: a rewording that changes nothing, or that is the text of another prompt, is left out. So texts
    still never stand in two folds. What is made of a prompt follows from the prompts, never from their order.

    Args:
        prompts: Originals, in folds.
        names: Kinds, in the order in which they are made.
        seed: Which way each prompt gets follows from it.

    Raises:
        InputError: There is no such kind.
    """
    if unknown := [name for name in names if name not in kinds()]:
        raise InputError(
            f"data.augment: there is no {unknown[0]!r}{guess(unknown[0], kinds())}; it can be: {', '.join(kinds())}"
        )
    texts, made = {prompt.text for prompt in prompts}, []
    for name in dict.fromkeys(names):
        ways = import_module(f"{__name__}.{name}").ways
        for prompt in sorted(prompts, key=lambda prompt: prompt.id):
            new = {way: text for way, text in ways(prompt.text).items() if text.strip() and text not in texts}
            if new:
                way = random.Random(f"{seed} {name} {prompt.id}").choice(sorted(new))
                made.append(_variant(prompt, new[way], f"{name}_{way}"))
                texts.add(new[way])
    return [*prompts, *made]


def _variant(prompt: Prompt, text: str, variant: str) -> Prompt:
    name = hashlib.sha256(f"{prompt.id}\0{variant}".encode()).hexdigest()[:16]
    return replace(prompt, id=name, text=text, source=prompt.id, variant=variant)
