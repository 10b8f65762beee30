"""Quantised GGUF blocks to numbers, each value as ggml computes it in float32.

Q4_0, Q4_1 and Q8_0 are decoded here in torch, because the default model consists of them and has to start fast; every
other type goes through the gguf package.
Layout: Q4_0 = float16 scale, 16 bytes of nibbles (low halves are elements 0-15, high halves 16-31);
Q4_1 = the same with a float16 minimum after the scale; Q8_0 = float16 scale, 32 signed bytes.
Equals: gguf.quants.dequantize, bit for bit.
"""

from __future__ import annotations

import torch

from seamount.checkpoint.gguf_types import GGMLType
from seamount.errors import CheckpointError, MissingDependency

CHUNK_ELEMENTS = 1 << 18


def decode_blocks(kind: GGMLType, raw: torch.Tensor, out: torch.Tensor) -> None:
    """Decode whole blocks into `out`, whose dtype may be any floating one.

    Shapes: raw uint8 (blocks * bytes per block,), out (blocks * elements per block,), both contiguous.
    Errors: CheckpointError for a type that nothing here decodes, MissingDependency without the gguf package.
    Cost: one more copy of `out` in float32 and of its codes.
    """
    blocks = raw.view(-1, kind.block_bytes)
    if kind.name == "Q4_0":
        values = _nibbles(blocks[:, 2:]).sub_(8.0).mul_(_half(blocks, 0))
    elif kind.name == "Q4_1":
        values = _nibbles(blocks[:, 4:]).mul_(_half(blocks, 0)).add_(_half(blocks, 2))
    elif kind.name == "Q8_0":
        values = blocks[:, 2:].view(torch.int8).to(torch.float32).mul_(_half(blocks, 0))
    else:
        values = _decode_with_gguf(kind, raw)
    out.copy_(values.view(-1))


def _half(blocks: torch.Tensor, start: int) -> torch.Tensor:
    return blocks[:, start : start + 2].clone().view(torch.float16).to(torch.float32)


def _nibbles(packed: torch.Tensor) -> torch.Tensor:
    values = torch.empty(packed.shape[0], 2, 16)
    values[:, 0] = packed & 15
    values[:, 1] = packed >> 4
    return values.view(-1, 32)


def _decode_with_gguf(kind: GGMLType, raw: torch.Tensor) -> torch.Tensor:
    # Optional, and its import costs as much as decoding the whole default model, which has no need of it.
    try:
        import gguf
    except ImportError as error:
        raise MissingDependency(f"decoding {kind.name} needs the package gguf: pip install gguf") from error
    try:
        # One row: the package works on sixteen rows at a time, and blocks do not depend on each other.
        values = gguf.quants.dequantize(raw.view(1, -1).numpy(), gguf.GGMLQuantizationType(kind.number))
    except (NotImplementedError, ValueError) as error:
        raise CheckpointError(f"the installed package gguf cannot decode {kind.name}: {error}") from error
    return torch.from_numpy(values)
