"""What is trained on what (``sae.scope``): the parts of the prompts that get autoencoders of their own.

    shared      one autoencoder a site, for all prompts
    safe_toxic  two: ``safe`` for the splits safe and hard, ``toxic`` for the split toxic
    category    one for each category

A part says no more than which strata the sampler finds rows in; all else is the same code. Known without torch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from refusal import InputError
from refusal.activations.samplers import Sampler, Stratum
from refusal.models.sites import Site
from refusal.prompts.prompt import SPLITS


@dataclass(frozen=True)
class Part:
    """The strata of some splits and categories."""

    name: str
    """A side or a category, or ``all``."""
    splits: tuple[str, ...] = SPLITS
    category: str | None = None
    """None: all."""

    def has(self, stratum: Stratum) -> bool:
        """Whether a stratum belongs to the part."""
        return stratum.split in self.splits and self.category in (None, stratum.category)

    def of(self, sampler: Sampler) -> Sampler:
        """Return the sampler that takes the strata outside this part for empty."""
        return partial(self._weights, sampler)

    def _weights(self, sampler: Sampler, strata: Sequence[Stratum]) -> np.ndarray:
        try:
            return sampler([one if self.has(one) else one._replace(rows=0) for one in strata])
        except InputError as error:
            raise InputError(str(error) if self == WHOLE else f"the autoencoder of {self.name}: {error}") from error


WHOLE, SAFE, TOXIC = Part("all"), Part("safe", ("safe", "hard")), Part("toxic", ("toxic",))


def parts(scope: str, categories: Collection[str]) -> list[Part]:
    """Return the parts of a scope, given the categories of the prompts."""
    by_category = [Part(category, category=category) for category in sorted(set(categories))]
    return {"shared": [WHOLE], "safe_toxic": [SAFE, TOXIC], "category": by_category}[scope]


READ_WITH: dict[str, Part] = {"shared": WHOLE, "safe_toxic": TOXIC}
"""The part whose autoencoders circuits are read with; in other scopes no single one knows all harmful prompts."""


class SaeKey(NamedTuple):
    """Which of a study's autoencoders: where, for what, and from which first weights."""

    site: Site
    part: Part
    seed: int

    def label(self, usual_seed: int) -> str:
        """Return its name in figures: the site; the part, where it is not the whole; a seed that is not the usual."""
        part = [] if self.part == WHOLE else [self.part.name]
        seed = [] if self.seed == usual_seed else [f"seed {self.seed}"]
        return " ".join([str(self.site), *part, *seed])
