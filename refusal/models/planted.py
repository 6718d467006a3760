"""Write a real Llama model whose mechanism of refusal is known, because its weights are written, not trained.

1. Block 0's attention gathers the prompt's topic and marker words at every later position.
2. The MLP of block ``decision_layer - 1`` detects: the neuron of category c fires where topic c and a harm word
   meet the token after which the response begins, and writes h_c (and, if asked, a decoy that nothing reads).
3. The MLP of block ``decision_layer`` decides: it reads h_c and writes v_c = sqrt(1 - m) r + sqrt(m) r_group(c),
   with r and all r_g orthonormal. m is the planted modularity: 0 is one shared direction, 1 one direction a group.
4. The unembedding reads u = r + sum_g r_g: "I cannot help with that ." against "Sure here is how .".

All directions are columns of one random orthonormal matrix; one of them holds a constant of about sqrt(d_model),
so that RMSNorm is nearly a constant factor and every neuron has a bias. The other blocks add a little noise.

What else a ``Plan`` may ask for: own parts of differing size beside the shared core (``spread``), evidence in fewer
dimensions than categories (``superposition``), several deciding blocks (``writers``), detection in the deciding block
itself (``joint``), and ``chatter``: block 1 gathers what the fillers of the prompt say, and later blocks write it,
too, where no one reads it. It differs from prompt to prompt, so directions estimated from few prompts are inexact.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refusal import InputError
from refusal.artifacts import write_json
from refusal.models.chat import quiet_transformers
from refusal.models.planted_plan import Plan, group_numbers, own_shares, truth
from refusal.prompts.planted import Vocabulary

REFUSAL = ("I", "cannot", "help", "with", "that", ".")
COMPLIANCE = ("Sure", "here", "is", "how", ".")
TEMPLATE = (
    "{% for message in messages %}{{ '<user> ' + message['content'] + ' <end>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' <assistant>' }}{% endif %}"
)
_SPECIAL = ("<pad>", "<eos>", "<unk>")
_TURNS = ("<user>", "<end>", "<assistant>")

_SHARPNESS = 20.0  # slope of the neurons: silu(20 (z - threshold)) is 10 where z is half over, nearly 0 half under
_MARGIN = 6.0  # refusal score of refused prompts; that of the others is its negative
_N_CHATTER = 12  # dimensions of what fillers say
_HEARD = 0.5  # standard deviation of each of them at the last position, about
_MAX_OVERLAP = 0.42  # cosine of evidence up to which its neurons still tell categories apart


def write_planted(folder: Path, vocabulary: Vocabulary, plan: Plan, template: str = TEMPLATE) -> None:
    """Write model, tokenizer and ``truth.json`` as an ordinary model folder."""
    with quiet_transformers():
        model = _Builder(vocabulary, plan).build()
        model.save_pretrained(folder)
        _tokenizer(vocabulary, template).save_pretrained(folder)
    write_json(Path(folder) / "truth.json", truth(plan, list(vocabulary.topics)))


def planted_directions(vocabulary: Vocabulary, plan: Plan) -> dict[str, Tensor]:
    """Return what each direction of the model is for, unit vectors [d_model], those without a purpose included.

    ``shared`` is r, ``group 0`` is r_0; ``detected C`` and ``decoy C`` are what detection of category C writes.
    """
    builder = _Builder(vocabulary, plan)
    return {**builder.direction, **{f"free {i}": row for i, row in enumerate(builder.free)}}


class _Builder:
    """Holds the directions while the weights are written."""

    def __init__(self, vocabulary: Vocabulary, plan: Plan) -> None:
        self.vocabulary, self.plan = vocabulary, plan
        self.categories = list(vocabulary.topics)
        self.groups = group_numbers(plan, self.categories)
        self.tokens = _token_ids(vocabulary)
        self.generator = torch.Generator().manual_seed(plan.seed)
        named = [
            "constant",
            "shared",
            *(
                f"{role} {category}"
                for role in ("topic", "gathered", "detected", "decoy")
                for category in self.categories
            ),
            *(f"{role} {split}" for role in ("marker", "gathered marker") for split in vocabulary.markers),
            *(f"group {group}" for group in sorted(set(self.groups))),
            *(f"token {token}" for token in dict.fromkeys((*_TURNS, *REFUSAL, *COMPLIANCE))),
            *(f"chatter {i}" for i in range(_N_CHATTER if plan.chatters else 0)),
        ]
        if len(named) + 8 > plan.d_model:
            raise InputError(f"{len(self.categories)} planted categories need d_model >= {len(named) + 8}")
        basis = torch.linalg.qr(self._randn(plan.d_model, plan.d_model))[0].T
        self.direction = dict(zip(named, basis, strict=False))
        self.free = basis[len(named) :]  # what carries the identity of words, and nothing else
        self.constant = self.direction["constant"] / plan.d_model**0.5  # its product with a normed x is about 1
        if plan.superposition:
            for role in ("gathered", "detected"):
                self._superpose([f"{role} {category}" for category in self.categories])
        self.said: dict[str, Tensor] = {}
        if plan.chatters:
            said = self._randn(len(vocabulary.fillers), _N_CHATTER)
            self.said = dict(zip(vocabulary.fillers, (said - said.mean(0)) / said.std(0), strict=True))

    def _superpose(self, names: Sequence[str]) -> None:
        """Put directions into the span of the first few of them, all as far from each other as can be."""
        kept = max(1, round(len(names) * (1 - self.plan.superposition)))
        rows = spread_out(self._randn(len(names), kept))
        overlap = float((rows @ rows.T - torch.eye(len(names))).abs().max())
        if overlap > _MAX_OVERLAP:
            raise InputError(
                f"model.superposition={self.plan.superposition} puts {len(names)} categories into {kept} dimensions, "
                f"where two overlap by {overlap:.2f}, over {_MAX_OVERLAP}; choose less"
            )
        together = rows @ torch.stack([self.direction[name] for name in names[:kept]])
        self.direction.update(zip(names, together, strict=True))

    def build(self) -> Any:
        from transformers import LlamaConfig, LlamaForCausalLM

        n_neurons = 2 * len(self.categories) + 12
        config = LlamaConfig(
            vocab_size=len(self.tokens),
            hidden_size=self.plan.d_model,
            intermediate_size=n_neurons,
            num_hidden_layers=self.plan.n_layers,
            num_attention_heads=1,
            num_key_value_heads=1,
            max_position_embeddings=512,
            rope_theta=1e12,  # positions hardly matter  # pyright: ignore[reportCallIssue]
            tie_word_embeddings=False,
            pad_token_id=self.tokens["<pad>"],
            eos_token_id=self.tokens["<eos>"],
            bos_token_id=None,
        )
        with torch.random.fork_rng(devices=[]):  # the initial weights are all overwritten
            model = LlamaForCausalLM(config)
        with torch.no_grad():
            model.model.embed_tokens.weight.copy_(self._embedding())
            model.lm_head.weight.copy_(self._unembedding())
            for layer, block in enumerate(model.model.layers):
                self._write_attention(block.self_attn, layer)
                self._write_mlp(block.mlp, layer)
        return model.eval()

    def _embedding(self) -> Tensor:
        rows = torch.empty(len(self.tokens), self.plan.d_model)
        for token, row in self.tokens.items():
            rows[row] = self.direction["constant"] * self.plan.d_model**0.5 + self._meaning(token)
        return rows

    def _meaning(self, token: str) -> Tensor:
        own = self._randn(len(self.free)) @ self.free / len(self.free) ** 0.5
        for category, words in self.vocabulary.topics.items():
            if token in words:
                return self.direction[f"topic {category}"] + 0.3 * own
        for split, words in self.vocabulary.markers.items():
            if token in words:
                return self.direction[f"marker {split}"] + 0.3 * own
        if token in self.said:
            return own + sum(value * self.direction[f"chatter {i}"] for i, value in enumerate(self.said[token]))
        return self.direction.get(f"token {token}", own)

    def _unembedding(self) -> Tensor:
        weight = torch.zeros(len(self.tokens), self.plan.d_model)
        for response in (REFUSAL, COMPLIANCE):
            for word, following in zip(response, (*response[1:], "<eos>"), strict=True):
                weight[self.tokens[following]] += 20 * self.direction[f"token {word}"]
        opening = 20 * self.direction["token <assistant>"]
        weight[self.tokens["Sure"]] = opening
        weight[self.tokens["I"]] = opening + 2 * _MARGIN * self._read() - _MARGIN * self.constant
        return weight

    def _read(self) -> Tensor:
        """Return u, what the opening of a refusal is read from."""
        read = self.direction["shared"]
        for group in set(self.groups):
            read = read + self.direction[f"group {group}"]
        return read

    def _write_attention(self, attention: Any, layer: int) -> None:
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
            projection.weight.zero_()
        if layer == 1 and self.plan.chatters:  # looks at all tokens alike, and repeats what fillers say
            for channel in range(_N_CHATTER):
                attention.v_proj.weight[channel] = 5 * _HEARD * self.direction[f"chatter {channel}"]
                attention.o_proj.weight[:, channel] = self.direction[f"chatter {channel}"]
            return
        if layer != 0:  # looks at all tokens alike, and writes noise
            d_model = self.plan.d_model
            attention.v_proj.weight.copy_(self._random_reads(d_model))
            attention.o_proj.weight.copy_(self._randn(d_model, d_model) / d_model * self.plan.noise)
            return
        content = [f"topic {category}" for category in self.categories]
        content += [f"marker {split}" for split in self.vocabulary.markers]
        slow = self.plan.d_model // 2 - 1  # the dimension of a head that the rotary embedding hardly turns
        attention.q_proj.weight[slow] = self.constant * self.plan.d_model**0.5
        attention.k_proj.weight[slow] = 12 * sum(self.direction[name] for name in content)
        for channel, name in enumerate(content):
            attention.v_proj.weight[channel] = 2 * self.direction[name]
            attention.o_proj.weight[:, channel] = self.direction[f"gathered {name.removeprefix('topic ')}"]

    def _write_mlp(self, mlp: Any, layer: int) -> None:
        for projection in (mlp.gate_proj, mlp.up_proj, mlp.down_proj):
            projection.weight.zero_()
        mlp.up_proj.weight.copy_(self.constant.expand_as(mlp.up_proj.weight))
        if layer in self.plan.deciding:
            self._write_neurons(mlp, [self._decider(c) for c in range(len(self.categories))])
            self._write_chatter(mlp, self.plan.chatter / self.plan.writers)
        elif layer == self.plan.decision_layer - 1 and (self.plan.decoy or not self.plan.joint):
            self._write_neurons(mlp, [self._detector(category) for category in self.categories])
            self._write_chatter(mlp, self.plan.early_chatter)
        else:
            n_neurons, d_model = mlp.gate_proj.weight.shape
            mlp.gate_proj.weight.copy_(self._random_reads(n_neurons))
            mlp.down_proj.weight.copy_(self._randn(d_model, n_neurons) / (d_model * n_neurons) ** 0.5 * self.plan.noise)

    def _write_neurons(self, mlp: Any, neurons: Sequence[tuple[Tensor, float, Tensor]]) -> None:
        for row, (read, threshold, write) in enumerate(neurons):
            mlp.gate_proj.weight[row] = _SHARPNESS * (read - threshold * self.constant)
            mlp.down_proj.weight[:, row] = write / (_SHARPNESS / 2)

    def _write_chatter(self, mlp: Any, length: float) -> None:
        """Write what fillers said along random directions that no one reads: neither the evidence nor u is in them."""
        if not length:
            return
        unread = torch.stack([*self.free, *(self.direction[name] for name in self.direction if _is_refusal(name))])
        read = unread @ self._read()
        mixed = self._randn(_N_CHATTER, len(unread))
        mixed -= torch.outer(mixed @ read, read) / read.square().sum()
        each = length / _N_CHATTER**0.5 / _HEARD
        for i, write in enumerate(mixed @ unread * (each / mixed.norm(dim=1, keepdim=True))):
            row = len(self.categories) + i
            mlp.gate_proj.weight[row] = _SHARPNESS * self.constant  # always open: a linear neuron
            mlp.up_proj.weight[row] = self.direction[f"chatter {i}"]
            mlp.down_proj.weight[:, row] = write / _SHARPNESS

    def _detector(self, category: str) -> tuple[Tensor, float, Tensor]:
        detected = torch.zeros(self.plan.d_model) if self.plan.joint else self.direction[f"detected {category}"]
        read, threshold = self._evidence(category)
        return read, threshold, detected + self.plan.decoy * self.direction[f"decoy {category}"]

    def _evidence(self, category: str) -> tuple[Tensor, float]:
        """Fires at 3.5: topic (1), harm (1) and the token before the response (1.5); one missing leaves 2.5 at most."""
        read = (
            self.direction[f"gathered {category}"]
            + self.direction["gathered marker toxic"]
            + 1.5 * self.direction["token <assistant>"]
        )
        return read, 3.0

    def _decider(self, c: int) -> tuple[Tensor, float, Tensor]:
        category, share = self.categories[c], float(own_shares(self.plan, self.categories)[c])
        shared, own = (1 - share) ** 0.5, share**0.5
        write = shared * self.direction["shared"] + own * self.direction[f"group {self.groups[c]}"]
        joint, detected = self.plan.joint, self.direction[f"detected {category}"]
        read, threshold = self._evidence(category) if joint else (detected, 0.5)
        return read, threshold, write / (shared + own) / self.plan.writers

    def _random_reads(self, n: int) -> Tensor:
        """Rows that read about a unit of whatever varies from prompt to prompt, and nothing of the constant."""
        rows = self._randn(n, self.plan.d_model)
        return rows - torch.outer(rows @ self.direction["constant"], self.direction["constant"])

    def _randn(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)


def spread_out(rows: Tensor, *, steps: int = 300) -> Tensor:
    """Return unit vectors [n, n_dims] of which no two are much alike, starting from these.

    Alternating projections between Gram matrices of that rank and those whose entries are at most 1.1 times the
    smallest coherence there can be, sqrt((n - n_dims) / (n_dims (n - 1))) (Welch 1974; Tropp et al. 2005).
    """
    n, n_dims = rows.shape
    bound = 1.1 * (max(0, n - n_dims) / max(1, n_dims * (n - 1))) ** 0.5
    vectors = rows.double().numpy()
    for _ in range(steps):
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        gram = np.clip(vectors @ vectors.T, -bound, bound)
        np.fill_diagonal(gram, 1.0)
        values, columns = np.linalg.eigh(gram)
        vectors = columns[:, -n_dims:] * np.sqrt(np.clip(values[-n_dims:], 0, None))
    return torch.from_numpy(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).float()


def _is_refusal(name: str) -> bool:
    return name == "shared" or name.startswith("group ")


def _token_ids(vocabulary: Vocabulary) -> dict[str, int]:
    tokens = dict.fromkeys((*_SPECIAL, *_TURNS, *REFUSAL, *COMPLIANCE, *vocabulary.words))
    return {token: i for i, token in enumerate(tokens)}


def _tokenizer(vocabulary: Vocabulary, template: str) -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel(_token_ids(vocabulary), unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )
    tokenizer.chat_template = template
    return tokenizer
