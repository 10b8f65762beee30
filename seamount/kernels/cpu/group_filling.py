"""From GGUF's blocks to row blocks of the same integers and scales: see kernels/group_packing.py."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from seamount.errors import CheckpointError
from seamount.kernels.cpu.compiling import inlined, inner
from seamount.kernels.cpu.launch import all_workers, argument, launch
from seamount.kernels.cpu.vector import (
    apart,
    read_half,
    read_int32,
    read_int64,
    write_half,
    write_int32,
    write_int64,
)
from seamount.kernels.group_packing import CODE_BYTES, GROUP, GROUP_FORMATS, TILE_BYTES
from seamount.kernels.packing import INPUTS, Packed

_BLOCK_BYTES = {"q4_0": 18, "q4_1": 20, "q8_0": 34}  # of 32 inputs in a GGUF
_PADDING = {"q4_0": -0x77777778, "q4_1": 0, "q8_0": 0}  # four bytes of zeros' codes, as stored
_LOW, _BIAS = np.int32(0x0F0F0F0F), np.int32(-0x7F7F7F80)
_INFINITE = 0x7C00


@inlined
def _word(source, number, padding):
    return np.int32(padding) if source == 0 else read_int32(source + number * 4)


@inlined
def _fill_nibbles(source, padding, out):
    """Four words, each byte of which holds inputs i and 16 + i, become four lines."""
    for pair in range(2):
        even, odd = _word(source, 2 * pair, padding), _word(source, 2 * pair + 1, padding)
        write_int32(out + pair * 64, np.int32((even & _LOW) | (odd & _LOW) << 4))
        write_int32(out + pair * 64 + 128, np.int32((even >> 4 & _LOW) | (odd & ~_LOW)))


@inner
def _fill_row(source, groups, tiles, block_bytes, codes, size, padding, out, row):
    """One row of a row block; zeros where its address is 0. How many of its scales are not finite."""
    apart()
    header = block_bytes % 16  # bytes of the scale, and for Q4_1 of the minimum
    faults = 0
    for number in range(2 * tiles):
        place = np.int64(0)
        if source != 0 and number < groups:
            place = source + number * block_bytes + header
        tile, part = out + number // 2 * size, number % 2
        if codes == 1024:
            for vector in range(8):
                word = np.int32(_word(place, vector, padding) ^ _BIAS)
                write_int32(tile + part * 512 + vector * 64 + row * 4, word)
        else:
            _fill_nibbles(place, padding, tile + part * 256 + row * 4)
        for scale in range(header // 2):
            half = np.int16(0)
            if place != 0:
                half = read_half(place - header + scale * 2)
            faults += (np.int64(half) & _INFINITE) == _INFINITE
            write_half(tile + codes + scale * 64 + part * 32 + row * 2, half)
    return faults


def fill_rows(arguments, phase, me, threads):
    """The kernel of `fill`: each thread takes every so many-th row block."""
    source_of, rows, blocks, tiles, groups = (
        argument(arguments, 0), argument(arguments, 1), argument(arguments, 2), argument(arguments, 3),
        argument(arguments, 4),
    )  # fmt: skip
    block_bytes, codes, size, padding = (
        argument(arguments, 5), argument(arguments, 6), argument(arguments, 7), argument(arguments, 8),
    )  # fmt: skip
    faults = 0
    for block in range(me, (rows + 15) // 16, threads):
        for row in range(16):
            source, number = np.int64(0), block * 16 + row
            if number < rows:
                source = read_int64(source_of + number * 8)
            out = blocks + block * tiles * size
            faults += _fill_row(source, groups, tiles, block_bytes, codes, size, padding, out, row)
    write_int64(argument(arguments, 9) + me * 8, faults)


def fill(raw: Sequence[Tensor], row_N: Tensor, out: Packed) -> None:
    """Fill a weight of a group format with rows of a GGUF's tensors, which are taken as they are.

    Shapes: each raw uint8 (rows, bytes of a row); row int64 (N): which rows of them, counted through all, the weight's
    are; out (N, K), K a multiple of 32.
    Errors: CheckpointError for a scale that is not finite.
    Cost: a copy, at the speed of memory.
    """
    assert out.format in GROUP_FORMATS, f"{out.format} has no scales of its groups"
    groups, workers, size = out.columns // GROUP, all_workers(), _BLOCK_BYTES[out.format]
    assert out.columns % GROUP == 0, "a row is whole groups"
    assert all(part.is_contiguous() and part.shape[1] == groups * size for part in raw), "rows of so many blocks"
    assert len(row_N) == out.rows, "one row of blocks for each row of the weight"
    assert out.blocks.is_contiguous(), "row blocks must stand side by side"
    places = torch.cat([part.data_ptr() + torch.arange(len(part)) * groups * size for part in raw])
    source_N = places[row_N].contiguous()
    faults = torch.zeros(workers, dtype=torch.int64)
    arguments = [source_N.data_ptr(), out.rows, out.blocks.data_ptr(), -(-out.columns // INPUTS), groups]
    arguments += [size, CODE_BYTES[out.format], TILE_BYTES[out.format], _PADDING[out.format], faults.data_ptr()]
    launch(fill_rows, arguments, workers=workers)
    if faults.any():
        raise CheckpointError("a weight's scale is not finite, and it cannot be used; fetch the file again")
    out.scale.fill_(1)
