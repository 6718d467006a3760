"""One function a family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn.functional import gelu, silu

from tests.models.by_hand.parts import Stream, Weights, attend, heads, layer_norm, rms_norm, rotate

Sites = dict[str, Tensor]
Config = Any


def llama(w: Weights, c: Config, ids: Tensor) -> tuple[Sites, Tensor]:
    return _llama_like(w, c, ids, _separate, _gated)


def mistral(w: Weights, c: Config, ids: Tensor) -> tuple[Sites, Tensor]:
    return _llama_like(w, c, ids, _separate, _gated, window=c.sliding_window)


def qwen2(w: Weights, c: Config, ids: Tensor) -> tuple[Sites, Tensor]:
    return _llama_like(w, c, ids, _separate, _gated)  # its biases are among the weights


def qwen3(w: Weights, c: Config, ids: Tensor) -> tuple[Sites, Tensor]:
    def normed(block: Weights, c: Config, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = _separate(block, c, x)
        q = rms_norm(q, block["self_attn.q_norm.weight"], c.rms_norm_eps)
        return q, rms_norm(k, block["self_attn.k_norm.weight"], c.rms_norm_eps), v

    return _llama_like(w, c, ids, normed, _gated)


def phi3(w: Weights, c: Config, ids: Tensor) -> tuple[Sites, Tensor]:
    def fused(block: Weights, c: Config, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        qkv = heads(block.linear("self_attn.qkv_proj", x), c.num_attention_heads + 2 * c.num_key_value_heads)
        q, k, v = qkv.split([c.num_attention_heads, c.num_key_value_heads, c.num_key_value_heads])
        return q, k, v

    def fused_mlp(block: Weights, x: Tensor) -> Tensor:
        gate, up = block.linear("mlp.gate_up_proj", x).chunk(2, -1)
        return block.linear("mlp.down_proj", silu(gate) * up)

    return _llama_like(w, c, ids, fused, fused_mlp, window=c.sliding_window)


def gemma2(w: Weights, c: Config, ids: Tensor) -> tuple[Sites, Tensor]:
    def attention(block: Weights, x: Tensor, is_sliding: bool) -> Tensor:
        q, k, v = _separate(block, c, x)
        theta = c.rope_parameters["rope_theta"]
        mixed = attend(
            rotate(q, theta),
            rotate(k, theta),
            v,
            scale=c.query_pre_attn_scalar**-0.5,
            window=c.sliding_window if is_sliding else None,
            cap=c.attn_logit_softcapping,
        )
        return block.linear("self_attn.o_proj", mixed)

    sites, logits = _gemma_like(w, c, ids, attention)
    return sites, c.final_logit_softcapping * (logits / c.final_logit_softcapping).tanh()


def gemma3(w: Weights, c: Config, ids: Tensor) -> tuple[Sites, Tensor]:
    def attention(block: Weights, x: Tensor, is_sliding: bool) -> Tensor:
        q, k, v = _separate(block, c, x)
        q = rms_norm(q, 1 + block["self_attn.q_norm.weight"], c.rms_norm_eps)
        k = rms_norm(k, 1 + block["self_attn.k_norm.weight"], c.rms_norm_eps)
        theta = c.rope_parameters["sliding_attention" if is_sliding else "full_attention"]["rope_theta"]
        mixed = attend(
            rotate(q, theta),
            rotate(k, theta),
            v,
            scale=c.query_pre_attn_scalar**-0.5,
            window=c.sliding_window if is_sliding else None,
        )
        return block.linear("self_attn.o_proj", mixed)

    return _gemma_like(w, c, ids, attention)


def gpt_neox(w: Weights, c: Config, ids: Tensor) -> tuple[Sites, Tensor]:
    n_rotary = int(c.hidden_size // c.num_attention_heads * c.rope_parameters["partial_rotary_factor"])
    stream = Stream(w["gpt_neox.embed_in.weight"][ids])
    for n in range(c.num_hidden_layers):
        block = w.at(f"gpt_neox.layers.{n}")
        x = layer_norm(stream.x, block.at("input_layernorm"), c.layer_norm_eps)
        qkv = heads(block.linear("attention.query_key_value", x), c.num_attention_heads)
        q, k, v = qkv.chunk(3, -1)  # within each head
        theta = c.rope_parameters["rope_theta"]
        mixed = attend(rotate(q, theta, n_rotary), rotate(k, theta, n_rotary), v, scale=q.shape[-1] ** -0.5)
        attention = block.linear("attention.dense", mixed)
        seen = stream.x if c.use_parallel_residual else stream.x + attention
        x = layer_norm(seen, block.at("post_attention_layernorm"), c.layer_norm_eps)
        stream.add(attention, block.linear("mlp.dense_4h_to_h", gelu(block.linear("mlp.dense_h_to_4h", x))))
    x = layer_norm(stream.x, w.at("gpt_neox.final_layer_norm"), c.layer_norm_eps)
    return stream.sites, w.linear("lm_head", x)


def gpt2(w: Weights, c: Config, ids: Tensor) -> tuple[Sites, Tensor]:
    def conv(block: Weights, name: str, x: Tensor) -> Tensor:  # stored the other way round than a linear layer
        return x @ block[f"{name}.weight"] + block[f"{name}.bias"]

    stream = Stream(w["transformer.wte.weight"][ids] + w["transformer.wpe.weight"][: len(ids)])
    for n in range(c.n_layer):
        block = w.at(f"transformer.h.{n}")
        x = layer_norm(stream.x, block.at("ln_1"), c.layer_norm_epsilon)
        q, k, v = (heads(part, c.n_head) for part in conv(block, "attn.c_attn", x).chunk(3, -1))
        attention = conv(block, "attn.c_proj", attend(q, k, v, scale=q.shape[-1] ** -0.5))
        x = layer_norm(stream.x + attention, block.at("ln_2"), c.layer_norm_epsilon)
        stream.add(attention, conv(block, "mlp.c_proj", gelu(conv(block, "mlp.c_fc", x), approximate="tanh")))
    x = layer_norm(stream.x, w.at("transformer.ln_f"), c.layer_norm_epsilon)
    return stream.sites, w.linear("lm_head", x)


def _llama_like(
    w: Weights,
    c: Config,
    ids: Tensor,
    project: Callable[[Weights, Config, Tensor], tuple[Tensor, Tensor, Tensor]],
    mlp: Callable[[Weights, Tensor], Tensor],
    window: int | None = None,
) -> tuple[Sites, Tensor]:
    stream = Stream(w["model.embed_tokens.weight"][ids])
    theta = c.rope_parameters["rope_theta"]
    for n in range(c.num_hidden_layers):
        block = w.at(f"model.layers.{n}")
        q, k, v = project(block, c, rms_norm(stream.x, block["input_layernorm.weight"], c.rms_norm_eps))
        mixed = attend(rotate(q, theta), rotate(k, theta), v, scale=q.shape[-1] ** -0.5, window=window)
        attention = block.linear("self_attn.o_proj", mixed)
        x = rms_norm(stream.x + attention, block["post_attention_layernorm.weight"], c.rms_norm_eps)
        stream.add(attention, mlp(block, x))
    return stream.sites, w.linear("lm_head", rms_norm(stream.x, w["model.norm.weight"], c.rms_norm_eps))


def _gemma_like(
    w: Weights, c: Config, ids: Tensor, attend_in: Callable[[Weights, Tensor, bool], Tensor]
) -> tuple[Sites, Tensor]:
    def norm(block: Weights, name: str, x: Tensor) -> Tensor:
        return rms_norm(x, 1 + block[f"{name}.weight"], c.rms_norm_eps)

    stream = Stream(w["model.embed_tokens.weight"][ids] * c.hidden_size**0.5)
    for n in range(c.num_hidden_layers):
        block = w.at(f"model.layers.{n}")
        is_sliding = c.layer_types[n] == "sliding_attention"
        out = attend_in(block, norm(block, "input_layernorm", stream.x), is_sliding)
        attention = norm(block, "post_attention_layernorm", out)
        x = norm(block, "pre_feedforward_layernorm", stream.x + attention)
        gate, up = gelu(block.linear("mlp.gate_proj", x), approximate="tanh"), block.linear("mlp.up_proj", x)
        stream.add(attention, norm(block, "post_feedforward_layernorm", block.linear("mlp.down_proj", gate * up)))
    return stream.sites, w.linear("lm_head", norm(w, "model.norm", stream.x))


def _separate(block: Weights, c: Config, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    n_heads = {"q": c.num_attention_heads, "k": c.num_key_value_heads, "v": c.num_key_value_heads}
    q, k, v = (heads(block.linear(f"self_attn.{name}_proj", x), n) for name, n in n_heads.items())
    return q, k, v


def _gated(block: Weights, x: Tensor) -> Tensor:
    return block.linear("mlp.down_proj", silu(block.linear("mlp.gate_proj", x)) * block.linear("mlp.up_proj", x))
