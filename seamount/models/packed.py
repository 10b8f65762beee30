"""Which weights of a model are packed, under which names, and how a packed weight takes a parameter's place.

Packed are all matrices of attention and feed-forward, and the head; norms, biases, the router, and the embedding as a
table to look up rows stay as they are. The head and the two halves of `kv_b_proj` are int8 whatever the format: they
are a small share of a mixture's bytes, and as int4 the head alone cost the embedded model as much divergence as half of
all other weights (bench/quality.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from seamount.kernels.packing import Format, Packed
from seamount.models.model import Model
from seamount.models.names import whole
from seamount.models.parts.linear import Linear
from seamount.models.parts.mla import LatentAttention
from seamount.models.spec import MLASpec, ModelSpec

VERSION = 1  # of the layout and of the names; a checkpoint of another one is refused


@dataclass(frozen=True)
class PackedSlot:
    """A packed weight: its name in model and checkpoint, and the part of which parameter it is.

    `view` gives (..., N, K), of the whole parameter and of a part of its first dimension alike.
    """

    name: str
    parameter: str
    format: Format
    view: Callable[[Tensor], Tensor] = whole
    is_beside: bool = False  # the parameter stays as well


def stored_names(name: str) -> tuple[str, str]:
    """The two tensors of a checkpoint that make up a packed weight."""
    return f"{name}.blocks", f"{name}.scale"


def packed_slots(spec: ModelSpec, parameters: Mapping[str, Tensor], format: Format) -> Iterator[PackedSlot]:
    """Every packed weight of a model with these parameters: two of `kv_b_proj`, and one beside a tied embedding."""
    attention = {f"layers.{number}.": layer.attention for number, layer in enumerate(spec.layers)}
    attention |= {f"mtp.{number}.block.": layer.attention for number, layer in enumerate(spec.mtp_layers)}
    for name in parameters:
        if name == "embed_tokens.weight":
            if spec.tie_word_embeddings:
                yield PackedSlot("lm_head.weight", name, "int8", is_beside=True)
        elif name == "lm_head.weight":
            yield PackedSlot(name, name, "int8")
        elif name.endswith(".kv_b_proj.weight"):
            of = attention[name.removesuffix("self_attn.kv_b_proj.weight")]
            assert isinstance(of, MLASpec), f"{name} belongs to no latent attention"
            H, N = of.num_attention_heads, of.qk_nope_head_dim
            prefix = name.removesuffix("kv_b_proj.weight")
            yield PackedSlot(f"{prefix}w_uk", name, "int8", _key_part(H, N))
            yield PackedSlot(f"{prefix}w_uv", name, "int8", _value_part(H, N))
        elif name.endswith(("gate_up_proj", "gate_up_proj.weight")):
            yield PackedSlot(name, name, format, lambda weight: weight.unflatten(-2, (2, -1)))
        elif name.endswith(("_proj", "_proj.weight", "_proj_with_mqa.weight")):
            yield PackedSlot(name, name, format)


def _key_part(H: int, N: int) -> Callable[[Tensor], Tensor]:
    """The keys' rows head by head, transposed for the absorbed query: (H, C, N)."""
    return lambda kv_b: kv_b.unflatten(0, (H, -1))[:, :N].transpose(1, 2)


def _value_part(H: int, N: int) -> Callable[[Tensor], Tensor]:
    """The values' rows head by head: (H, V, C)."""
    return lambda kv_b: kv_b.unflatten(0, (H, -1))[:, N:]


def install(model: Model, name: str, weight: Packed) -> None:
    """Put a packed weight into its place in the model; the parameter that it stands for goes."""
    path, _, attribute = name.rpartition(".")
    if path == "lm_head" and model.lm_head is None:
        # A tied head has no module of its own, because the embedding is its weight: here it is not.
        model.lm_head = Linear(1, 1)
    module = model.get_submodule(path)
    if isinstance(module, LatentAttention):
        # kv_b_proj goes with its first half: both are made of it.
        module._modules.pop("kv_b_proj", None)
    module._parameters.pop(attribute, None)
    setattr(module, attribute, weight)


def packed_weights(model: nn.Module) -> Iterator[tuple[str, Packed]]:
    """The packed weights that a model holds, by name."""
    for path, module in model.named_modules():
        for attribute, value in vars(module).items():
            if isinstance(value, Packed):
                yield f"{path}.{attribute}", value
