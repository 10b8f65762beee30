"""Products of bfloat16 rows by 32 rows of a weight, in the order of AMX's tdpbf16ps on every processor.

Per 32 inputs: one chain of fused multiply-adds over the even ones and one over the odd, both from zero; their sum is
added to the output's total. A product of two bfloat16 is exact in float32, so a multiplication and an addition give the
same bits. An output depends on its own token and its own weight row alone.

Tokens are packed in blocks of up to 16. With tiles: word (pair of inputs p, token t of n) at `(p * n + t) * 4`;
without: token after token. Inputs are padded with zeros to a multiple of 32.
"""

import numpy as np
import torch
from numba import njit
from numba.extending import register_jitable

from seamount.kernels.cpu.emulated_tiles import add_product
from seamount.kernels.cpu.partial import load_some_bfloat16, store_some_bfloat16
from seamount.kernels.cpu.target import TARGET
from seamount.kernels.cpu.tiles import (
    tile_configuration,
    tile_dot_bfloat16,
    tile_load,
    tile_store,
    tile_zero,
)
from seamount.kernels.cpu.vector import (
    add,
    floats,
    load_bytes,
    load_floats,
    store_bfloat16,
    store_bytes,
    store_floats,
    transpose16,
)

UNIT = 32  # output rows that are worked out together
BLOCK = 16  # tokens that are worked out together
# The products of a block by a unit: two tiles as AMX leaves them, then the same with a token's outputs side by side.
RESULT_BYTES = 4096
_STAGE_BYTES = 2048
_ZERO = np.float32(0)


def _configurations() -> torch.Tensor:
    """Tile shapes for a block of n = 1 .. 16 tokens, at 64 n: 0 and 1 hold totals, 2 weights, 3 tokens."""
    whole = torch.frombuffer(bytearray(tile_configuration()), dtype=torch.uint8)
    table = whole.repeat(BLOCK + 1, 1)
    for tokens in range(1, BLOCK + 1):
        for tile in (0, 1, 3):
            table[tokens, 16 + 2 * tile] = 4 * tokens
    return table


CONFIGURATIONS = _configurations()


@register_jitable
def padded(count):
    """Inputs after padding."""
    return (count + 31) // 32 * 32


@register_jitable
def pack_bytes(K):
    """Bytes of one packed block of tokens."""
    return padded(K) * BLOCK * 2 + _STAGE_BYTES


@register_jitable
def weight_bytes(K):
    """Bytes of scratch for one unit's weights."""
    return padded(K) * UNIT * 2 + _STAGE_BYTES


@njit(forceinline=True)
def _copy_line(place, left, out):
    """32 bfloat16 of a row of which `left` are left, zeros behind them: 64 bytes."""
    if left >= 32:
        store_bytes(out, load_bytes(place))
    else:
        store_bfloat16(out, load_some_bfloat16(place, left))
        store_bfloat16(out + 32, load_some_bfloat16(place + 32, left - 16))


@njit
def store_results(results, count, rows, bias, out, stride):
    """The first `rows` outputs of each token, plus the bias where there is one, rounded to bfloat16."""
    for token in range(count):
        for row in range(0, rows, 16):
            value = load_floats(results + token * 128 + row * 4)
            if bias != 0:
                value = add(value, load_some_bfloat16(bias + row * 2, rows - row))
            store_some_bfloat16(out + token * stride + row * 2, rows - row, value)


if TARGET.has_amx:

    @njit
    def pack(x, stride, count, K, out):
        """Up to 16 rows of bfloat16, `stride` bytes apart, as a tile wants them."""
        stage = out + padded(K) * BLOCK * 2
        for k in range(0, padded(K), 32):
            place = out + k * 2 * count
            if count == 1:
                _copy_line(x + k * 2, K - k, place)
            elif count == BLOCK and k + 32 <= K:
                transpose16(x + k * 2, stride, place, 64)
            else:
                for token in range(count):
                    _copy_line(x + token * stride + k * 2, K - k, stage + token * 64)
                # Each line overwrites what the one before it wrote beyond `count` words.
                transpose16(stage, 64, place, count * 4)

    @njit
    def prepare(weight, stride, rows, K, is_reused, scratch):
        """Put a unit's lines into `scratch`, tile after tile: all that are reused, or else those that need padding.

        How many tiles of 32 inputs are still to be read from the weight itself.
        """
        tiles = padded(K) // 32
        first = K // 32
        if is_reused or rows < UNIT:
            first = 0
        for row in range(UNIT):
            # A tile's rows are read together, and a block of 16 rows tile by tile.
            out = scratch + (row // 16 * tiles * 16 + row % 16) * 64
            for tile in range(first, tiles):
                left = K - tile * 32
                if row >= rows:
                    left = 0
                _copy_line(weight + row * stride + tile * 64, left, out + tile * 1024)
        return first

    @njit
    def products(weight, stride, direct, scratch, x, count, K, results):
        """A unit's outputs for a packed block of tokens: float32 (count, 32) at half of `results`: see `outputs`.

        Nothing is prefetched: 32 rows are read side by side, and the processor follows them better by itself.
        """
        tiles = padded(K) // 32
        width = count * 4
        tile_zero(0)
        tile_zero(1)
        for tile in range(direct):
            tile_load(3, x + tile * 16 * width, width)
            tile_load(2, weight + tile * 64, stride)
            tile_dot_bfloat16(0, 2, 3)
            tile_load(2, weight + 16 * stride + tile * 64, stride)
            tile_dot_bfloat16(1, 2, 3)
        for tile in range(direct, tiles):
            tile_load(3, x + tile * 16 * width, width)
            tile_load(2, scratch + tile * 1024, 64)
            tile_dot_bfloat16(0, 2, 3)
            tile_load(2, scratch + (tiles + tile) * 1024, 64)
            tile_dot_bfloat16(1, 2, 3)
        tile_store(0, results, 64)
        tile_store(1, results + 1024, 64)
        transpose16(results, 64, results + 2048, 128)
        transpose16(results + 1024, 64, results + 2112, 128)

else:

    @njit
    def pack(x, stride, count, K, out):
        """Up to 16 rows of bfloat16, `stride` bytes apart, token after token."""
        for token in range(count):
            for k in range(0, padded(K), 32):
                _copy_line(x + token * stride + k * 2, K - k, out + (token * padded(K) + k) * 2)

    @njit
    def prepare(weight, stride, rows, K, is_reused, scratch):
        """Turn a unit so that 16 rows stand side by side: word (pair p, row n) of a block at `(p * 16 + n) * 4`.

        How many tiles of 32 inputs are still to be read from the weight itself: none.
        """
        tiles = padded(K) // 32
        stage = scratch + padded(K) * UNIT * 2
        for block in range(2):
            for tile in range(tiles):
                place = weight + block * 16 * stride + tile * 64
                out = scratch + (block * tiles + tile) * 1024
                if rows == UNIT and (tile + 1) * 32 <= K:
                    transpose16(place, stride, out, 64)
                else:
                    for row in range(16):
                        left = K - tile * 32
                        if block * 16 + row >= rows:
                            left = 0
                        _copy_line(place + row * stride, left, stage + row * 64)
                    transpose16(stage, 64, out, 64)
        return 0

    @njit
    def products(weight, stride, direct, scratch, x, count, K, results):
        """A unit's outputs for a packed block of tokens: float32 (count, 32) at half of `results`: see `outputs`."""
        tiles, out = padded(K) // 32, results + 2048
        for line in range(0, count * 128, 64):
            store_floats(out + line, floats(_ZERO))
        for tile in range(tiles):
            tokens = x + tile * 64
            add_product(out, 128, tokens, padded(K) * 2, count, scratch + tile * 1024, 64)
            add_product(out + 64, 128, tokens, padded(K) * 2, count, scratch + (tiles + tile) * 1024, 64)


@njit(forceinline=True)
def outputs(results):
    """Where a token's 32 outputs stand side by side, 128 bytes a token."""
    return results + 2048
