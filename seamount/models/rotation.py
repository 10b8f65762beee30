"""Turning the residual stream, so that no channel stands out and int8 activations lose little.

Trained streams have a few channels many times larger than the rest, and one int8 scale for a token must cover them. If
every token's row x becomes x R with an orthogonal R, RMS norms without a weight commute with it, so R can go into the
weights: those that read the stream become W diag(norm weight) R, those that write it R^T W, the embedding E R, and the
norm weights 1. The model computes the same, and nothing is added to a token's work.

R is a random sign for each channel, then a Hadamard matrix (as far as the width is divisible by two) crossed with a
random orthogonal one of the odd rest: dense, and cheap to apply.
Source: QuaRot, arXiv 2404.00456; SliceGPT, arXiv 2401.15024, section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from seamount.checkpoint import TensorSource
from seamount.kernels.packing import Format
from seamount.models.names import Slot
from seamount.models.spec import ModelSpec

_HADAMARD = 64  # larger ones are products of smaller ones
_AFTER_INPUT_NORM = ("qkv_proj", "q_proj", "q_a_proj", "kv_a_proj_with_mqa")
_AFTER_POST_NORM = ("gate_up_proj", "gate")
_INTO_STREAM = ("o_proj", "down_proj")


class Rotation:
    """R of one model, and the norm weights that go into the weights with it."""

    def __init__(self, dim: int, norm_D: dict[str, Tensor]) -> None:
        generator = torch.Generator().manual_seed(dim)
        self.norm_D = norm_D
        self.sign_D = torch.randint(0, 2, (dim,), generator=generator).float() * 2 - 1
        odd, self.factors = dim, []
        while odd % 2 == 0:
            size = 2
            while size < _HADAMARD and odd % (2 * size) == 0:
                size *= 2
            self.factors.append(_hadamard(size))
            odd //= size
        noise = torch.randn(odd, odd, generator=generator, dtype=torch.float64)
        self.factors.append(torch.linalg.qr(noise)[0].float())

    def turn(self, x_XD: Tensor) -> Tensor:
        """`x R` of rows of the stream's width, in float32."""
        y = (x_XD.float() * self.sign_D).unflatten(-1, [factor.shape[0] for factor in self.factors])
        for place, factor in enumerate(self.factors):
            dim = place - len(self.factors)
            y = (y.movedim(dim, -1) @ factor).movedim(-1, dim)
        return y.flatten(-len(self.factors))

    def apply(self, name: str, weight: Tensor) -> Tensor:
        """What a parameter, or a part of a stack's, becomes; itself where it does not touch the stream."""
        if name in self.norm_D:
            return torch.ones_like(weight)
        if name == "embed_tokens.weight":
            return self.turn(weight)
        path = name.removesuffix(".weight").removesuffix(".bias")
        layer, kind = ".".join(path.split(".")[:2]), path.rpartition(".")[-1]
        norm = {"lm_head": "norm.weight"}.get(path)
        if kind in _AFTER_INPUT_NORM:
            norm = f"{layer}.input_layernorm.weight"
        elif kind in _AFTER_POST_NORM:
            norm = f"{layer}.post_attention_layernorm.weight"
        if norm is not None and not name.endswith(".bias"):
            return self.turn(weight.float() * self.norm_D[norm])
        if kind in _INTO_STREAM:
            return self.turn(weight) if name.endswith(".bias") else self.turn(weight.mT).mT.contiguous()
        return weight


def rotation_of(spec: ModelSpec, format: Format, slots: Iterable[Slot], source: TensorSource) -> Rotation | None:
    """The rotation for packing a checkpoint as int8; None for int4, and with MTP layers.

    Turned weights have no quiet groups left for int4's multipliers to follow: the embedded model loses more by
    that as int8 activations cost it. MTP layers have a norm of their own before the one head, which R cannot pass.
    """
    if format == "int4" or spec.mtp_layers:
        return None
    ends = ("input_layernorm.weight", "post_attention_layernorm.weight")
    norm_D = {
        slot.target: source.read(slot.source, torch.float32)
        for slot in slots
        if slot.target == "norm.weight" or slot.target.endswith(ends)
    }
    return Rotation(spec.hidden_size, norm_D)


def _hadamard(size: int) -> Tensor:
    """Sylvester's matrix of a power of two, made orthogonal."""
    matrix = torch.ones(1, 1)
    while matrix.shape[0] < size:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    return matrix / size**0.5
