"""GGUF's Q4_0, Q4_1 and Q8_0 in the kernels' order: the same integers, with float16 scales for a row and 32 inputs.

Tiles, vectors and lines are those of packing.py. Behind the codes of a tile stand the float16 scales of its two groups
of inputs, 16 rows each, and for q4_1 their minima in the same way:
  q4_0  w = (nibble - 8) * scale       512 + 64 bytes a tile: 4.5 bits a weight
  q4_1  w = nibble * scale + minimum   512 + 128 bytes, 5 bits
  q8_0  w = (byte - 128) * scale       1,024 + 64 bytes, 8.5 bits
A block is its tiles, one after the other. Padding has the code that stands for zero, and zero as its scale.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

GroupFormat = Literal["q4_0", "q4_1", "q8_0"]
GROUP_FORMATS: tuple[GroupFormat, ...] = ("q4_0", "q4_1", "q8_0")
GROUP = 32  # inputs that share a scale
CODE_BYTES: dict[GroupFormat, int] = {"q4_0": 512, "q4_1": 512, "q8_0": 1024}  # of a tile
TILE_BYTES: dict[GroupFormat, int] = {"q4_0": 576, "q4_1": 640, "q8_0": 1088}
OFFSET: dict[GroupFormat, int] = {"q4_0": 8, "q4_1": 0, "q8_0": 128}  # the code that stands for zero
_ROWS = 16


class Parts(NamedTuple):
    """What row blocks hold: code uint8 (..., N, K), from 0 up; scale and minimum float32 (..., N, groups)."""

    code: Tensor
    scale: Tensor
    minimum: Tensor | None


def parts(format: GroupFormat, blocks: Tensor, rows: int, columns: int) -> Parts:
    """The codes and scales of a weight (..., rows, columns): the specification of the layout.

    Shapes: blocks uint8 (..., B, bytes of a block).
    """
    tiles, codes = blocks.shape[-1] // TILE_BYTES[format], CODE_BYTES[format]
    tile_XBKY = blocks.reshape(-1, blocks.shape[-2], tiles, TILE_BYTES[format])
    X, B = tile_XBKY.shape[:2]
    # (stack, block, tile, line, row, 4 inputs)
    line_XBKPRI = tile_XBKY[..., :codes].reshape(X, B, tiles, -1, _ROWS, 4)
    if format != "q8_0":
        line_XBKPRI = torch.stack((line_XBKPRI & 15, line_XBKPRI >> 4), dim=4).flatten(3, 4)
    code_XNK = line_XBKPRI.permute(0, 1, 4, 2, 3, 5).reshape(X, B * _ROWS, -1)[:, :rows, :columns]
    found = []
    for begin in range(codes, TILE_BYTES[format], 64):
        part_XBKGR = tile_XBKY[..., begin : begin + 64].contiguous().view(torch.float16).unflatten(-1, (2, _ROWS))
        part_XNG = part_XBKGR.permute(0, 1, 4, 2, 3).reshape(X, B * _ROWS, -1)[:, :rows, : -(-columns // GROUP)]
        found.append(part_XNG.float().reshape(*blocks.shape[:-2], rows, -1))
    code = code_XNK.reshape(*blocks.shape[:-2], rows, columns)
    return Parts(code, found[0], found[1] if len(found) == 2 else None)


def numbers(format: GroupFormat, blocks: Tensor, rows: int, columns: int) -> Tensor:
    """The weight (..., rows, columns) as every reader of a GGUF computes it in float32."""
    code, scale, minimum = parts(format, blocks, rows, columns)
    value = (code.float() - OFFSET[format]) * scale.repeat_interleave(GROUP, dim=-1)[..., :columns]
    return value if minimum is None else value + minimum.repeat_interleave(GROUP, dim=-1)[..., :columns]
