"""The family of planted models: drawn from a seed, each of one kind, and different in everything else.

Modularity m is on a grid, mostly where the answer is clear. The kinds, in turn:

- ``simple``; ``groups`` (categories that share); ``core`` (a core and own parts of differing size); ``decoy``;
  ``superposition``; ``writers`` (several blocks write the refusal); ``joint`` (detection in the deciding block);
- ``chatter``: noise from prompt to prompt, so that directions estimated from few prompts are inexact; real models are
  like that, so half of the family is: alone, with wrong ``labels``, or in a ``mixture`` with one to three of the above.
  Mostly detection is as noisy as the decision, in a quarter of them it is clean.

All differ in d_model, depth, deciding block, number of categories, 20 to 200 refused prompts a category (and as many
complied), vocabulary and template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from refusal.calibration.planted import SYSTEM_TEMPLATE, PlantedStudy, plant
from refusal.comparison.transfer import voting_layers
from refusal.models.planted import TEMPLATE
from refusal.models.planted_plan import Plan, truth
from refusal.prompts.prompt import CATEGORIES

MODULARITIES = (0.0, 0.0, 0.05, 0.25, 0.4, 0.5, 0.5, 0.6, 0.75, 0.95, 1.0, 1.0)
SIZES = (20, 20, 30, 30, 50, 50, 100, 200)
SMALL = 30
MIN_CATEGORIES, MAX_REFUSED = 4, 300  # the most refused prompts of a model, so that it takes seconds (4 x 200 may be)
KINDS = (
    "simple",
    "chatter",
    "groups",
    "mixture",
    "core",
    "labels",
    "decoy",
    "chatter",
    "superposition",
    "mixture",
    "writers",
    "labels",
    "joint",
    "mixture",
)


@dataclass(frozen=True)
class Member:
    """One model of the family, and how it is asked."""

    number: int
    kind: str
    plan: Plan
    categories: tuple[str, ...]
    n: int
    """Refused prompts a category, and as many complied."""
    label_noise: float
    system_prompt: bool
    words: int
    """Seed of vocabulary and prompts."""

    @property
    def truth(self) -> float:
        """The index that the written weights have."""
        return truth(self.plan, self.categories)["index"]

    @property
    def written(self) -> dict[str, Any]:
        """Everything about it, as JSON holds it."""
        return asdict(self)

    @property
    def template(self) -> str:
        """The chat template."""
        return SYSTEM_TEMPLATE if self.system_prompt else TEMPLATE

    def study(self) -> PlantedStudy:
        """Write it, and ask it its prompts."""
        return plant(
            self.plan,
            categories=self.categories,
            n=self.n,
            n_hard=self.n // 2,
            n_safe=self.n - self.n // 2,
            words=self.words,
            draw=self.words,
            template=self.template,
            label_noise=self.label_noise,
        )


def draw_family(seed: int, n: int, *, small: bool = False) -> list[Member]:
    """Return the first n models of the seed's family; more of them begin with the same.

    ``small`` ones have four categories with 30 refused prompts each, to be measured in a second or two.
    """
    return [_draw(seed, number, small) for number in range(n)]


def _draw(seed: int, number: int, small: bool) -> Member:
    rng = np.random.default_rng([seed, number])
    kind = KINDS[number % len(KINDS)]
    n = SMALL if small else int(rng.choice(SIZES))
    most = MIN_CATEGORIES if small else max(MIN_CATEGORIES, min(len(CATEGORIES), MAX_REFUSED // n))
    categories = CATEGORIES[: int(rng.integers(MIN_CATEGORIES, most + 1))]
    modularity = float(rng.choice(MODULARITIES))
    n_layers = int(rng.integers(5, 11))
    stop = voting_layers(n_layers)
    drawn = _parts(rng, categories, modularity)
    mixed = rng.choice([name for name in drawn if name != "chatter"], int(rng.integers(1, 4)), replace=False)
    parts = {"labels": ("chatter", "labels"), "mixture": ("chatter", *mixed.tolist())}.get(kind, (kind,))
    options = {name: value for part in parts for name, value in drawn.get(part, {}).items()}
    label_noise = options.pop("label_noise", 0.0)
    decision_layer = int(rng.integers(2, stop + 1 - options.get("writers", 1)))
    plan = Plan(
        modularity=modularity,
        n_layers=n_layers,
        decision_layer=decision_layer,
        d_model=int(rng.choice([112, 128, 160, 192])),
        noise=float(rng.choice([0.02, 0.05, 0.1])),
        seed=1000 * seed + number,
        **options,
    )
    system_prompt = bool(rng.random() < 0.3)
    return Member(number, kind, plan, categories, n, label_noise, system_prompt, words=1000 * seed + number)


def _parts(rng: np.random.Generator, categories: Sequence[str], modularity: float) -> dict[str, dict[str, Any]]:
    """Return what each part of a mixture adds to a plan."""
    n_groups = int(rng.integers(2, min(4, len(categories) - 1)))
    chatter = float(rng.choice([0.5, 1.0, 2.0, 3.0]))
    return {
        "groups": {"groups": tuple(tuple(categories[group::n_groups]) for group in range(n_groups))},
        "core": {"spread": float(rng.choice([0.5, 1.0])) * min(modularity, 1 - modularity)},
        "decoy": {"decoy": float(rng.choice([0.5, 1.0, 2.0]))},
        "superposition": {"superposition": 0.25},
        "writers": {"writers": 2},
        "joint": {"joint": True},
        "chatter": {"chatter": chatter, "early_chatter": chatter if rng.random() < 0.75 else 0.0},
        "labels": {"label_noise": float(rng.choice([0.02, 0.05, 0.1]))},
    }
