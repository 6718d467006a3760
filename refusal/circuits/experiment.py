"""What every attribution method and every intervention shares: the prompts, the SAEs, and one pass over them.

``Experiment.readings`` holds x, the activations of all sites at the chosen positions, from one forward pass, and
g = dm/dx, the gradient of the refusal score m in the unspliced model, from one backward pass for all sites
together. The beginning of a prompt is run once; passes go through its last ``n_positions`` tokens only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from refusal import InputError
from refusal.circuits.baseline import Baseline, baseline_of
from refusal.models.chat import ChatModel, Encoded
from refusal.models.gradients import differentiating
from refusal.models.hooks import editing
from refusal.models.refusal_score import refusal_score
from refusal.models.sites import Site
from refusal.models.suffix import SuffixBatch, suffix_batches


class Dictionary(Protocol):
    """What is asked of a sparse autoencoder; x, f and directions are in the model's units."""

    def encode(self, x: Tensor) -> Tensor:
        """Return f [..., d_sae] of x [..., d_model]."""
        ...

    def decode(self, f: Tensor) -> Tensor:
        """Return the reconstruction [..., d_model] of f [..., d_sae]."""
        ...

    @property
    def directions(self) -> Tensor:
        """What one unit of each feature adds to x, [d_sae, d_model]."""
        ...


class Readings(NamedTuple):
    """One pass over the prompts, on the CPU."""

    x: dict[Site, Tensor]
    """Activations, float32 [n_prompts, n_positions, d_model]."""
    g: dict[Site, Tensor]
    """Gradient of the refusal score, same shape; zeros where none was wanted."""
    scores: Tensor
    """Refusal score m, float32 [n_prompts]."""


class Split(NamedTuple):
    """A site's activations on some prompts, taken apart: x = decode(f) + e."""

    x: Tensor
    """[batch, n_positions, d_model]"""
    f: Tensor
    """[batch, n_positions, d_sae]"""
    e: Tensor
    """[batch, n_positions, d_model]"""


@dataclass
class Experiment:
    """Prompts with their labels, a model, and SAEs for some of its sites.

    Args:
        chat: The model.
        encoded: The prompts, in the chat template.
        categories: Category of each prompt.
        refused: Whether the model refused each prompt, bool [n_prompts].
        saes: The sites, each with its SAE, on the model's device.
        refusal_tokens: Token ids whose log-odds are the refusal score.
        positions: ``last`` prompt token, or all tokens of the ``template`` after the instruction.
        baseline: ``mean`` over complied prompts of the same category, ``zero``, or the ``reference`` of another
            experiment (held-out prompts are compared with the baseline of the training prompts).
        batch_size: Prompts in one pass; changes no result.
        splits: Split of each prompt (``safe``, ``hard``, ``toxic``): what separate circuits are of.
        gradients: Whether the readings have g; interventions do without, and the passes take a third of the time.

    Raises:
        InputError: The template has no token after the instruction, or positions or baseline are unknown.
    """

    chat: ChatModel
    encoded: Sequence[Encoded]
    categories: Sequence[str]
    refused: np.ndarray
    saes: Mapping[Site, Dictionary]
    refusal_tokens: Sequence[int]
    positions: str = "last"
    baseline: str | Baseline = "mean"
    batch_size: int = 256
    splits: Sequence[str] = ()
    gradients: bool = True

    def __post_init__(self) -> None:
        if self.positions not in ("last", "template"):
            raise InputError(f"unknown circuits.positions={self.positions}; one of last, template")
        if self.positions == "template" and len({prompt.n_template for prompt in self.encoded} - {0}) != 1:
            raise InputError("circuits.positions=template needs a chat template with text after the instruction")

    @property
    def sites(self) -> list[Site]:
        """The sites in the order of computation."""
        return sorted(self.saes)

    @property
    def n_positions(self) -> int:
        """Number of tokens at the end of each prompt that are attributed and changed."""
        return 1 if self.positions == "last" else self.encoded[0].n_template

    @cached_property
    def readings(self) -> Readings:
        """Activations, gradients (if wanted) and scores, from one forward and one backward pass."""
        return _read(self)

    @cached_property
    def reference(self) -> Baseline:
        """What a feature or an error is compared with."""
        if isinstance(self.baseline, Baseline):
            return self.baseline
        return baseline_of(self, self.baseline)

    @cached_property
    def groups(self) -> Tensor:
        """Each prompt's row in the baseline's tables, int64 [n_prompts]."""
        return torch.tensor([self.reference.categories.index(name) for name in self.categories], dtype=torch.long)

    def rows(self, category: str, *, refused: bool) -> np.ndarray:
        """Return the category's prompts that were refused (or complied with), int64."""
        in_category = np.asarray(self.categories) == category
        return np.flatnonzero(in_category & (np.asarray(self.refused) == refused))

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield the prompts' numbers in order, a batch at a time."""
        numbers = np.arange(len(self.encoded))
        for start in range(0, len(numbers), self.batch_size):
            yield numbers[start : start + self.batch_size]

    def batches(self) -> Iterator[SuffixBatch]:
        """Yield the prompts in batches whose last ``n_positions`` tokens can be run again."""
        return suffix_batches(self.chat, self.encoded, n_suffix=self.n_positions, batch_size=self.batch_size)

    def score(self, batch: SuffixBatch) -> Tensor:
        """Run the batch's last tokens under the active hooks; return m [batch]."""
        return refusal_score(batch.logits(), self.refusal_tokens)

    def split(self, site: Site, rows: np.ndarray) -> Split:
        """Take a site's activations on some prompts apart into features and error."""
        x = self.readings.x[site][rows].to(self.chat.device)
        with torch.no_grad():
            f = self.saes[site].encode(x)
            return Split(x, f, x - self.saes[site].decode(f))

    def baseline_rows(self, site: Site, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return f0 [batch, n_positions, d_sae] and e0 [batch, n_positions, d_model] for some prompts."""
        groups = self.groups[rows].to(self.chat.device)
        return self.reference.features[site][groups], self.reference.errors[site][groups]

    def baseline_x(self, site: Site, rows: np.ndarray) -> Tensor:
        """Return x0 = decode(f0) + e0 for some prompts, [batch, n_positions, d_model]."""
        with torch.no_grad():
            x0 = self.saes[site].decode(self.reference.features[site]) + self.reference.errors[site]
        return x0[self.groups[rows].to(self.chat.device)]

    def with_baseline(self, kind: str, saes: Mapping[Site, Dictionary] | None = None) -> Experiment:
        """Return the same experiment against another baseline, read with other SAEs; the model is not run again."""
        other = replace(self, baseline=kind, saes=saes or self.saes)
        other.__dict__["readings"] = self.readings
        return other

    def subset(self, rows: np.ndarray) -> Experiment:
        """Return the experiment on some of its prompts (a prompt may recur), against the same baseline."""
        part = replace(
            self,
            encoded=[self.encoded[row] for row in rows],
            categories=[self.categories[row] for row in rows],
            refused=np.asarray(self.refused)[rows],
            baseline=self.reference,
            splits=[self.splits[row] for row in rows] if self.splits else (),
        )
        x, g, scores = self.readings
        part.__dict__["readings"] = Readings(_take(x, rows), _take(g, rows), scores[rows])
        return part


def _take(tensors: Mapping[Site, Tensor], rows: np.ndarray) -> dict[Site, Tensor]:
    return {site: tensor[rows] for site, tensor in tensors.items()}


def _read(experiment: Experiment) -> Readings:
    shape = (len(experiment.encoded), experiment.n_positions, experiment.chat.d_model)
    x = {site: torch.empty(shape) for site in experiment.sites}
    g = {site: torch.zeros(shape) for site in experiment.sites}
    scores = torch.empty(shape[0])
    seen: dict[Site, Tensor] = {}

    def watch(site: Site, value: Tensor) -> Tensor:
        # The first site's tensor depends on nothing that has a gradient: there, the graph begins.
        seen.setdefault(site, value.requires_grad_() if experiment.gradients and not value.requires_grad else value)
        return value

    edits = {site: lambda value, site=site: watch(site, value) for site in experiment.sites}
    for batch in experiment.batches():
        passes = differentiating(experiment.chat.model) if experiment.gradients else torch.no_grad()
        with passes, editing(experiment.chat.model, edits):
            m = experiment.score(batch)
            if experiment.gradients:
                gradients = torch.autograd.grad(m.sum(), [seen[site] for site in experiment.sites])
                for site, gradient in zip(experiment.sites, gradients, strict=True):
                    g[site][batch.index] = gradient.float().cpu()
        for site, value in seen.items():
            x[site][batch.index] = value.detach().float().cpu()
        scores[batch.index] = m.detach().cpu()
        seen.clear()
    return Readings(x, g, scores)
