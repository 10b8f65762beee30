"""Tensor names: each tensor of a checkpoint is a view of one parameter.

A list of slots, read one way, loads (`view(parameter).copy_(tensor)`), and read the other way saves
(`tensor = view(parameter)`), so the two cannot disagree.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from seamount.models.spec import DenseSpec, GQASpec, LayerSpec, MLASpec, ModelSpec, MoESpec


def whole(parameter: Tensor) -> Tensor:
    """The view of a tensor that is a parameter by itself."""
    return parameter


@dataclass(frozen=True)
class Slot:
    """Where a checkpoint's tensor stands: its name, our parameter's name, and the part of the parameter that it is."""

    source: str
    target: str
    view: Callable[[Tensor], Tensor] = whole
    is_flattened: bool = False  # the checkpoint's tensor has all dimensions of the view but the last as one
    is_copy: bool = False  # a second copy of a tensor that has a slot already: compared on load, and not needed
    is_saved: bool = True

    def shape(self, parameter: Tensor) -> tuple[int, ...]:
        """The shape that the checkpoint's tensor must have."""
        view = self.view(parameter)
        return tuple((view.flatten(0, -2) if self.is_flattened else view).shape)


# Parameters that stay float32 whatever the model's dtype, as the published checkpoints keep them.
FLOAT32 = ("e_score_correction_bias",)


def rows(start: int, stop: int) -> Callable[[Tensor], Tensor]:
    """Some rows of a fused matrix, or of its bias."""
    return lambda parameter: parameter[start:stop]


def expert_rows(expert: int, start: int, stop: int) -> Callable[[Tensor], Tensor]:
    """Some rows of one expert in a stack."""
    return lambda parameter: parameter[expert, start:stop]


def whole_expert(expert: int) -> Callable[[Tensor], Tensor]:
    """One expert of a stack."""
    return lambda parameter: parameter[expert]


def hugging_face(spec: ModelSpec) -> Iterator[Slot]:
    """The names of the published checkpoints of all families up to V3."""
    yield Slot("model.embed_tokens.weight", "embed_tokens.weight")
    for number, layer in enumerate(spec.layers):
        yield from _layer(f"model.layers.{number}.", f"layers.{number}.", layer)
    yield Slot("model.norm.weight", "norm.weight")
    if spec.tie_word_embeddings:
        yield Slot("lm_head.weight", "embed_tokens.weight", is_copy=True, is_saved=False)
    else:
        yield Slot("lm_head.weight", "lm_head.weight")
    for depth, layer in enumerate(spec.mtp_layers):
        source, target = f"model.layers.{len(spec.layers) + depth}.", f"mtp.{depth}."
        for name in ("enorm", "hnorm", "eh_proj"):
            yield Slot(f"{source}{name}.weight", f"{target}{name}.weight")
        yield Slot(f"{source}shared_head.norm.weight", f"{target}norm.weight")
        yield from _layer(source, f"{target}block.", layer)
        head = "embed_tokens.weight" if spec.tie_word_embeddings else "lm_head.weight"
        yield Slot(f"{source}embed_tokens.weight", "embed_tokens.weight", is_copy=True)
        yield Slot(f"{source}shared_head.head.weight", head, is_copy=True)


def _layer(source: str, target: str, layer: LayerSpec) -> Iterator[Slot]:
    for name in ("input_layernorm", "post_attention_layernorm"):
        yield Slot(f"{source}{name}.weight", f"{target}{name}.weight")
    if isinstance(layer.attention, MLASpec):
        yield from _mla(f"{source}self_attn.", f"{target}self_attn.", layer.attention)
    else:
        yield from _gqa(f"{source}self_attn.", f"{target}self_attn.", layer.attention)
    if isinstance(layer.feed_forward, MoESpec):
        yield from _mixture(f"{source}mlp.", f"{target}mlp.", layer.feed_forward)
    else:
        yield from _dense(f"{source}mlp.", f"{target}mlp.", layer.feed_forward)


def _gqa(source: str, target: str, spec: GQASpec) -> Iterator[Slot]:
    heads = {"q": spec.num_attention_heads, "k": spec.num_key_value_heads, "v": spec.num_key_value_heads}
    for tensor in ("weight", "bias") if spec.qkv_bias else ("weight",):
        start = 0
        for name, count in heads.items():
            stop = start + count * spec.head_dim
            yield Slot(f"{source}{name}_proj.{tensor}", f"{target}qkv_proj.{tensor}", rows(start, stop))
            start = stop
    for tensor in ("weight", "bias") if spec.output_bias else ("weight",):
        yield Slot(f"{source}o_proj.{tensor}", f"{target}o_proj.{tensor}")
    for name in ("q_norm", "k_norm") if spec.qk_norm else ():
        yield Slot(f"{source}{name}.weight", f"{target}{name}.weight")


def _mla(source: str, target: str, spec: MLASpec) -> Iterator[Slot]:
    query = ("q_proj",) if spec.q_lora_rank is None else ("q_a_proj", "q_a_layernorm", "q_b_proj")
    for name in (*query, "kv_a_proj_with_mqa", "kv_a_layernorm", "kv_b_proj", "o_proj"):
        yield Slot(f"{source}{name}.weight", f"{target}{name}.weight")
        if spec.bias and name in ("q_a_proj", "kv_a_proj_with_mqa", "o_proj"):
            yield Slot(f"{source}{name}.bias", f"{target}{name}.bias")


def _dense(source: str, target: str, spec: DenseSpec) -> Iterator[Slot]:
    F = spec.intermediate_size
    yield Slot(f"{source}gate_proj.weight", f"{target}gate_up_proj.weight", rows(0, F))
    yield Slot(f"{source}up_proj.weight", f"{target}gate_up_proj.weight", rows(F, 2 * F))
    yield Slot(f"{source}down_proj.weight", f"{target}down_proj.weight")


def _mixture(source: str, target: str, spec: MoESpec) -> Iterator[Slot]:
    F = spec.moe_intermediate_size
    yield Slot(f"{source}gate.weight", f"{target}gate.weight")
    if spec.topk_method == "noaux_tc":
        yield Slot(f"{source}gate.e_score_correction_bias", f"{target}gate.e_score_correction_bias")
    for number in range(spec.n_routed_experts):
        expert = f"{source}experts.{number}."
        yield Slot(f"{expert}gate_proj.weight", f"{target}experts.gate_up_proj", expert_rows(number, 0, F))
        yield Slot(f"{expert}up_proj.weight", f"{target}experts.gate_up_proj", expert_rows(number, F, 2 * F))
        yield Slot(f"{expert}down_proj.weight", f"{target}experts.down_proj", whole_expert(number))
    if spec.n_shared_experts:
        shared = DenseSpec(spec.n_shared_experts * F)
        yield from _dense(f"{source}shared_experts.", f"{target}shared_experts.", shared)
