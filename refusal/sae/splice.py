"""An autoencoder in the place of its site while the model reads held-out prompts: what the model then still does.

    clean     the model as it is
    spliced   x -> decode(encode(x))
    ablated   x -> mean of x over these prompts' tokens of the same kind (the last token is a kind of its own), so that
              nothing is left at the site of what one prompt says and another does not

x is replaced at the prompt's tokens of the kinds that the autoencoders were trained on, and at its last; BOS, fixed
text before the instruction, padding, and the response's own tokens keep theirs. Of each prompt, at its last token:

    score     refusal score m, nats
    kl        KL divergence of the next token's distribution from the clean one, nats
    ce        cross-entropy of the first token of the clean model's own greedy response, nats
    refused   whether the greedy response refuses, by the rule that labelled the prompts

An autoencoder recovers (m_spliced - m_ablated) / (m_clean - m_ablated) of the refusal: 1 is all of it, 0 is what the
ablated model does, and one that does worse is under 0. Over several prompts it is the least-squares slope of these
differences, not the ratio of their means: what the site adds to the score of harmful prompts and takes from that of
harmless ones must not cancel. Of ce it is the ratio of means (the CE score of SAELens). Where clean and ablated hardly
differ, the site does not matter for these prompts, and what is recovered is undefined: None.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from refusal.activations.labels import judged
from refusal.activations.plan import batches
from refusal.activations.recipe import Recipe
from refusal.models.chat import Batch, ChatModel, Encoded
from refusal.models.greedy import Greedy
from refusal.models.hooks import Edit, editing
from refusal.models.refusal_score import refusal_score
from refusal.models.sites import Site
from refusal.models.tokens import TOKEN_KINDS
from refusal.sae.base import SparseAutoencoder

MIN_SCORE, MIN_CE = 0.5, 0.05  # nats between clean and ablated; nothing is divided by less
KEPT, LAST = -1, len(TOKEN_KINDS)  # beside the kinds of tokens: those that stay as they are, and the last ones
ROWS_AT_ONCE = 1024

Replace = Callable[[Tensor, Tensor], Tensor]
"""What stands in the place of rows x [n, d_model] of these kinds [n]: rows of the same shape."""


@dataclass(frozen=True)
class Sample:
    """Held-out prompts; the first ``n_answered`` of them are answered, too."""

    encoded: Sequence[Encoded]
    splits: np.ndarray
    categories: np.ndarray
    n_answered: int


class Outcomes(NamedTuple):
    """What the model does on each prompt of a sample."""

    score: np.ndarray
    """Refusal score, [n_prompts]; empty where no refusal tokens are known."""
    kl: np.ndarray
    """[n_prompts]"""
    ce: np.ndarray
    """[n_prompts]"""
    refused: np.ndarray
    """bool [n_answered]; empty where no refusal tokens are known."""


class _Part(NamedTuple):
    """Prompts of one forward pass."""

    rows: np.ndarray
    batch: Batch
    kinds: Tensor
    """Of each token, or ``KEPT``; [batch, seq]."""
    n_tokens: int
    """Length of the responses; 0: none."""


class _Pass(NamedTuple):
    """What the model says to all prompts."""

    log_probs: Tensor
    """[n_prompts, vocab]"""
    score: np.ndarray
    refused: np.ndarray


class Splicing:
    """A model and a sample of prompts, for which autoencoders are put in place one after the other.

    Args:
        chat: The model.
        sample: The prompts.
        sites: Where autoencoders will be put.
        kinds: Kinds of the tokens at which they are put.
        recipe: How responses are made and judged.
        refusal_tokens: Token ids whose log-odds are the refusal score; without any, no refusal is measured.
        token_budget: Padded tokens of one forward pass.
    """

    def __init__(
        self,
        chat: ChatModel,
        sample: Sample,
        sites: Collection[Site],
        *,
        kinds: Collection[str],
        recipe: Recipe,
        refusal_tokens: Sequence[int],
        token_budget: int,
    ) -> None:
        self._chat, self._sample, self._recipe, self._tokens = chat, sample, recipe, list(refusal_tokens)
        self._parts = list(
            _parts(chat, sample, kinds, 0 if recipe.refused_by == "score" else recipe.response_tokens, token_budget)
        )
        sums = {site: torch.zeros(LAST + 1, chat.d_model, device=chat.device) for site in set(sites)}
        self._clean = self._run(lambda kinds: {site: partial(_add, total, kinds) for site, total in sums.items()})
        counts = torch.stack([_one_hot(part.kinds).sum(0) for part in self._parts]).sum(0)
        self._means = {site: total / counts.clamp(min=1)[:, None] for site, total in sums.items()}
        self._ablated = cache(self._ablate)

    @property
    def clean(self) -> dict[str, Any]:
        """What the model itself does, by stratum: ``score`` (mean) and ``refusal_rate``."""
        outcomes = self._outcomes(self._clean)
        return by_stratum(lambda rows: _levels({"clean": outcomes}, rows), self._sample)

    def measure(self, sae: SparseAutoencoder, site: Site) -> dict[str, Any]:
        """Return what becomes of the model with an autoencoder in the place of its site, by stratum."""
        found = {
            "clean": self._outcomes(self._clean),
            "spliced": self._outcomes(self._run_with(site, lambda x, _: reconstructed(sae, x))),
            "ablated": self._ablated(site),
        }
        return by_stratum(lambda rows: _figures(found, rows), self._sample)

    def _ablate(self, site: Site) -> Outcomes:
        means = self._means[site]
        return self._outcomes(self._run_with(site, lambda _, kinds: means[kinds]))

    def _run_with(self, site: Site, replace: Replace) -> _Pass:
        return self._run(lambda kinds: {site: partial(_put, replace, kinds)})

    @torch.no_grad()
    def _run(self, edits: Callable[[Tensor], Mapping[Site, Edit]]) -> _Pass:
        """Run all prompts under edits that are told the kinds of a batch's tokens; responses go on without them."""
        log_probs, n = None, len(self._sample.encoded)
        score, by_phrases = np.zeros(n), np.zeros(self._sample.n_answered, dtype=bool)
        for rows, batch, kinds, n_tokens in self._parts:
            with editing(self._chat.model, edits(kinds)):
                output = self._chat.model(**batch.inputs(), use_cache=n_tokens > 0, logits_to_keep=1)
            logits = output.logits[:, -1].float()
            log_probs = torch.empty(n, logits.shape[1]) if log_probs is None else log_probs
            log_probs[rows] = logits.log_softmax(-1).cpu()
            if self._tokens:
                score[rows] = refusal_score(logits, self._tokens).cpu().numpy()
            if n_tokens:
                greedy = Greedy(self._chat, batch, logits, output.past_key_values, n_tokens)
                by_phrases[rows] = greedy.refusals(n_tokens, self._recipe.phrases)
        assert log_probs is not None
        if not self._tokens:
            return _Pass(log_probs, score[:0], by_phrases[:0])
        return _Pass(log_probs, score, judged(by_phrases, score[: len(by_phrases)] > 0, self._recipe.refused_by))

    def _outcomes(self, found: _Pass) -> Outcomes:
        clean = self._clean.log_probs
        kl = (clean.exp() * (clean - found.log_probs)).sum(1)
        ce = -found.log_probs.gather(1, clean.argmax(1, keepdim=True))[:, 0]
        return Outcomes(found.score, kl.numpy(), ce.numpy(), found.refused)


def by_stratum(figures: Callable[[np.ndarray], Any], sample: Sample) -> dict[str, Any]:
    """Return figures of all prompts, of each split and of each category; ``figures`` is given bool [n_prompts]."""
    return {
        "all": figures(np.ones(len(sample.encoded), dtype=bool)),
        "splits": {str(name): figures(sample.splits == name) for name in np.unique(sample.splits)},
        "categories": {str(name): figures(sample.categories == name) for name in np.unique(sample.categories)},
    }


def reconstructed(sae: SparseAutoencoder, x: Tensor) -> Tensor:
    """Return decode(encode(x)) of rows [n, d_model], some at a time, as all their codes may not fit in memory."""
    return torch.cat([sae.decode_sparse(*sae.sparse_codes(part)) for part in x.split(ROWS_AT_ONCE)])


def recovered(clean: np.ndarray, spliced: np.ndarray, ablated: np.ndarray, least: float) -> float | None:
    """Return which share of the way from ablated to clean the spliced model has gone.

    Args:
        clean: A figure of the clean model on each prompt, [n_prompts].
        spliced: The same with the autoencoder in place.
        ablated: The same of the ablated model.
        least: A way that is shorter than this (root mean square) is none: None.
    """
    way, gone = clean - ablated, spliced - ablated
    if not len(way) or np.sqrt(np.mean(way**2)) < least:
        return None
    return float(gone @ way / (way @ way))


def _figures(found: Mapping[str, Outcomes], rows: np.ndarray) -> dict[str, Any]:
    """What is said of the prompts ``rows``, bool [n_prompts]."""
    score = {name: one.score[rows[: len(one.score)]] for name, one in found.items()}
    ce = {name: one.ce[rows].mean(keepdims=True) for name, one in found.items()}
    return {
        **_levels(found, rows),
        "recovered_ce": recovered(**ce, least=MIN_CE),
        "recovered_refusal": recovered(**score, least=MIN_SCORE),
    }


def _levels(found: Mapping[str, Outcomes], rows: np.ndarray) -> dict[str, Any]:
    """Means over the prompts ``rows``, for each way to run the model."""
    answered = rows[: len(next(iter(found.values())).refused)]
    return {
        "n_prompts": int(rows.sum()),
        "n_answered": int(answered.sum()),
        "score": {name: _mean(one.score[rows[: len(one.score)]]) for name, one in found.items()},
        "refusal_rate": {name: _mean(one.refused[answered]) for name, one in found.items()},
        "kl": {name: _mean(one.kl[rows]) for name, one in found.items()},
        "ce": {name: _mean(one.ce[rows]) for name, one in found.items()},
    }


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _parts(
    chat: ChatModel, sample: Sample, kinds: Collection[str], n_tokens: int, token_budget: int
) -> Iterator[_Part]:
    """Batches of prompts that are answered, then of the others."""
    wanted = [TOKEN_KINDS.index(kind) for kind in kinds]
    rows = np.arange(len(sample.encoded))
    for members, length in ((rows[: sample.n_answered], n_tokens), (rows[sample.n_answered :], 0)):
        for places in batches([len(sample.encoded[row].ids) for row in members], token_budget):
            prompts = [sample.encoded[row] for row in members[places]]
            batch = chat.pad(prompts, "left")
            table = np.full(batch.input_ids.shape, KEPT)
            for line, prompt in zip(table, prompts, strict=True):
                own, is_wanted = line[len(line) - len(prompt.ids) :], np.isin(prompt.kinds, wanted)
                own[is_wanted] = prompt.kinds[is_wanted]
            table[:, -1] = LAST
            yield _Part(members[places], batch, torch.from_numpy(table).to(chat.device), length)


def _one_hot(kinds: Tensor) -> Tensor:
    """[batch, seq] -> float [batch * seq, LAST + 1]; rows of tokens that are kept are zero."""
    return functional.one_hot(kinds.flatten() + 1, LAST + 2)[:, 1:].float()


def _add(total: Tensor, kinds: Tensor, x: Tensor) -> Tensor:
    """Add the rows of each kind to ``total`` [LAST + 1, d_model]; return x as it is."""
    total += _one_hot(kinds).T @ x.flatten(0, 1).to(total)
    return x


def _put(replace: Replace, kinds: Tensor, x: Tensor) -> Tensor:
    """Return x [batch, seq, d_model] with what replaces it at the tokens that are not kept."""
    chosen = kinds != KEPT
    other = x.clone()
    other[chosen.to(x.device)] = replace(x[chosen.to(x.device)].to(kinds.device, torch.float32), kinds[chosen]).to(x)
    return other
