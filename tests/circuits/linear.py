"""A model without any nonlinearity, and dictionaries written by hand, so that every effect is known on paper."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from refusal.circuits.experiment import Experiment
from refusal.models.chat import ChatModel, Encoded
from refusal.models.sites import parse_site
from refusal.models.tokens import INSTRUCTION, TEMPLATE


class HandSae(nn.Module):
    """f = relu(x E), x_hat = f D + b."""

    def __init__(self, encoder: Any, directions: Any, bias: Any = 0.0) -> None:
        super().__init__()
        self.encoder = floats(encoder)
        self.directions = floats(directions)
        self.bias = floats(bias)

    def encode(self, x: Tensor) -> Tensor:
        return (x @ self.encoder).relu()

    def decode(self, f: Tensor) -> Tensor:
        return f @ self.directions + self.bias


class Block(nn.Module):
    """x + A x, then + M x; each a matrix that acts on rows, without bias. The neurons are what the MLP writes."""

    def __init__(self, attention: Tensor, mlp: Tensor, activation: nn.Module) -> None:
        super().__init__()
        self.self_attn = nn.Linear(*attention.shape, bias=False)
        linear = nn.Linear(*mlp.shape, bias=False)
        self.self_attn.weight.data, linear.weight.data = attention.T.clone(), mlp.T.clone()
        self.mlp = nn.Sequential(OrderedDict(linear=linear, activation=activation, down_proj=nn.Identity()))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(x)
        return x + self.mlp(x)


class LinearModel(nn.Module):
    """Tokens do not mix; two logits, whose difference is the refusal score of token 0: m = x . u."""

    def __init__(self, embedding: Tensor, blocks: list[Block], u: Tensor) -> None:
        super().__init__()
        self.embedding = embedding
        self.model = nn.Module()
        self.model.layers = nn.ModuleList(blocks)
        self.u = u
        self.requires_grad_(False)

    def forward(self, input_ids: Tensor, **_: Any) -> Any:
        x = self.embedding[input_ids]
        for block in self.model.layers:  # type: ignore[union-attr]
            x = block(x)
        logits = torch.stack([x @ self.u, torch.zeros(x.shape[:-1])], -1)
        return SimpleNamespace(logits=logits, past_key_values=SimpleNamespace(layers=[]))


class Words:
    """What stands for a tokenizer: token 0 begins a refusal, any other a helpful response."""

    def batch_decode(self, responses: list[list[int]], **_: Any) -> list[str]:
        return ["I cannot." if ids[0] == 0 else "Sure." for ids in responses]


class LinearChat(ChatModel):
    """The model with token ids for text."""

    def __post_init__(self) -> None:
        self.tokenizer = Words()

    @property
    def end_ids(self) -> set[int]:
        return set()

    @property
    def d_model(self) -> int:
        return len(self.model.u)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def pad_id(self) -> int:
        return 0


def linear_chat(
    embedding: Any, blocks: list[tuple[Any, Any]], u: Any, activation: nn.Module | None = None
) -> LinearChat:
    """Build the model from the token's vectors, each block's two matrices [d, d], and the read-out."""
    parts = [Block(floats(attention), floats(mlp), activation or nn.Identity()) for attention, mlp in blocks]
    return LinearChat(LinearModel(floats(embedding), parts, floats(u)), None, "linear")


def floats(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)


def prompt(*ids: int, n_template: int = 1) -> Encoded:
    """Return token ids whose last ones are the template after the instruction."""
    kinds = np.full(len(ids), INSTRUCTION, np.uint8)
    kinds[len(ids) - n_template :] = TEMPLATE
    return Encoded(list(ids), kinds, np.zeros(len(ids), dtype=bool))


def random_experiment(seed: int = 0, *, activation: nn.Module | None = None, **options: Any) -> Experiment:
    """Return a random model of 2 blocks and d_model 4, with a dictionary of 6 features at each of its six sites."""
    rng = np.random.default_rng(seed)
    n_prompts, d_model, d_sae = 12, 4, 6
    embedding = rng.normal(size=(n_prompts, d_model))
    blocks = [tuple(0.5 * rng.normal(size=(2, d_model, d_model))) for _ in range(2)]
    saes = {
        parse_site(f"{kind}_{layer}"): HandSae(
            rng.normal(size=(d_model, d_sae)), 0.3 * rng.normal(size=(d_sae, d_model)), 0.1 * rng.normal(size=d_model)
        )
        for kind in ("attention", "mlp", "residuals")
        for layer in range(2)
    }
    return Experiment(
        chat=linear_chat(embedding, blocks, rng.normal(size=d_model), activation),  # type: ignore[arg-type]
        encoded=[prompt(*rng.integers(n_prompts, size=rng.integers(1, 4)), i) for i in range(n_prompts)],
        categories=["hate", "privacy"] * (n_prompts // 2),
        splits=["toxic", "toxic", "safe", "hard"] * (n_prompts // 4),
        refused=np.arange(n_prompts) % 4 < 2,
        saes=saes,
        refusal_tokens=[0],
        **{"batch_size": 5, **options},
    )
