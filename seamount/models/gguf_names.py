"""GGUF's names and layouts, as slots: llama.cpp's `llama` and `deepseek2` architectures."""

from collections.abc import Callable, Collection, Iterator

from torch import Tensor

from seamount.models.names import Slot, rows, whole
from seamount.models.spec import DenseSpec, GQASpec, LayerSpec, MLASpec, ModelSpec, MoESpec


def gguf(spec: ModelSpec, present: Collection[str]) -> Iterator[Slot]:
    """The slots of a GGUF whose tensor names are `present`; they settle which of two layouts of kv_b it has."""
    yield Slot("token_embd.weight", "embed_tokens.weight")
    for number, layer in enumerate(spec.layers):
        yield from _layer(f"blk.{number}.", f"layers.{number}.", layer, present)
    yield Slot("output_norm.weight", "norm.weight")
    if not spec.tie_word_embeddings:
        yield Slot("output.weight", "lm_head.weight")


def _layer(source: str, target: str, layer: LayerSpec, present: Collection[str]) -> Iterator[Slot]:
    yield Slot(f"{source}attn_norm.weight", f"{target}input_layernorm.weight")
    yield Slot(f"{source}ffn_norm.weight", f"{target}post_attention_layernorm.weight")
    if isinstance(layer.attention, MLASpec):
        yield from _mla(source, f"{target}self_attn.", layer.attention, present)
    else:
        yield from _gqa(source, f"{target}self_attn.", layer.attention)
    if isinstance(layer.feed_forward, MoESpec):
        yield from _mixture(source, f"{target}mlp.", layer.feed_forward)
    else:
        yield from _dense(source, f"{target}mlp.", layer.feed_forward, "")


def _gqa(source: str, target: str, spec: GQASpec) -> Iterator[Slot]:
    q, kv = spec.num_attention_heads * spec.head_dim, spec.num_key_value_heads * spec.head_dim
    fused = f"{target}qkv_proj.weight"
    yield Slot(f"{source}attn_q.weight", fused, _paired_rows(0, q, spec.head_dim), is_flattened=True)
    yield Slot(f"{source}attn_k.weight", fused, _paired_rows(q, q + kv, spec.head_dim), is_flattened=True)
    yield Slot(f"{source}attn_v.weight", fused, rows(q + kv, q + 2 * kv))
    yield Slot(f"{source}attn_output.weight", f"{target}o_proj.weight")


def _paired_rows(start: int, stop: int, head_dim: int) -> Callable[[Tensor], Tensor]:
    """Rows of heads whose rotary pairs GGUF stores side by side, and Hugging Face's llama half a head apart.

    The view is (heads, pairs, 2, D) in GGUF's order.
    """
    return lambda parameter: parameter[start:stop].unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2)


def _mla(source: str, target: str, spec: MLASpec, present: Collection[str]) -> Iterator[Slot]:
    if spec.q_lora_rank is None:
        yield Slot(f"{source}attn_q.weight", f"{target}q_proj.weight")
    else:
        yield Slot(f"{source}attn_q_a.weight", f"{target}q_a_proj.weight")
        yield Slot(f"{source}attn_q_a_norm.weight", f"{target}q_a_layernorm.weight")
        yield Slot(f"{source}attn_q_b.weight", f"{target}q_b_proj.weight")
    yield Slot(f"{source}attn_kv_a_mqa.weight", f"{target}kv_a_proj_with_mqa.weight")
    yield Slot(f"{source}attn_kv_a_norm.weight", f"{target}kv_a_layernorm.weight")
    yield Slot(f"{source}attn_output.weight", f"{target}o_proj.weight")
    H, N = spec.num_attention_heads, spec.qk_nope_head_dim
    if f"{source}attn_kv_b.weight" in present:
        yield Slot(f"{source}attn_kv_b.weight", f"{target}kv_b_proj.weight")
    else:
        # Newer files hold the two halves apart: k_b (H, C, N), ready for absorption, and v_b (H, V, C).
        yield Slot(
            f"{source}attn_k_b.weight",
            f"{target}kv_b_proj.weight",
            lambda parameter: parameter.unflatten(0, (H, -1))[:, :N].transpose(1, 2),
        )
        yield Slot(
            f"{source}attn_v_b.weight",
            f"{target}kv_b_proj.weight",
            lambda parameter: parameter.unflatten(0, (H, -1))[:, N:],
        )


def _dense(source: str, target: str, spec: DenseSpec, suffix: str) -> Iterator[Slot]:
    F = spec.intermediate_size
    yield Slot(f"{source}ffn_gate{suffix}.weight", f"{target}gate_up_proj.weight", rows(0, F))
    yield Slot(f"{source}ffn_up{suffix}.weight", f"{target}gate_up_proj.weight", rows(F, 2 * F))
    yield Slot(f"{source}ffn_down{suffix}.weight", f"{target}down_proj.weight", whole)


def _mixture(source: str, target: str, spec: MoESpec) -> Iterator[Slot]:
    F = spec.moe_intermediate_size
    yield Slot(f"{source}ffn_gate_inp.weight", f"{target}gate.weight")
    if spec.topk_method == "noaux_tc":
        yield Slot(f"{source}exp_probs_b.bias", f"{target}gate.e_score_correction_bias")
    yield Slot(f"{source}ffn_gate_exps.weight", f"{target}experts.gate_up_proj", lambda stack: stack[:, :F])
    yield Slot(f"{source}ffn_up_exps.weight", f"{target}experts.gate_up_proj", lambda stack: stack[:, F:])
    yield Slot(f"{source}ffn_down_exps.weight", f"{target}experts.down_proj")
    if spec.n_shared_experts:
        yield from _dense(source, f"{target}shared_experts.", DenseSpec(spec.n_shared_experts * F), "_shexp")
