"""Many tokens by two packed row blocks: the weights are unpacked once, and meet the tokens in tiles where there are.

The weights go by in panels that stay in the first-level cache for all tokens. The upper bytes of large quads follow one
by one.
"""

import numpy as np

from seamount.kernels.cpu.activations import END, add_times
from seamount.kernels.cpu.compiling import inlined, inner
from seamount.kernels.cpu.packed_blocks import INT8, tables
from seamount.kernels.cpu.panel_rows import PAIR_BYTES, row_sums
from seamount.kernels.cpu.target import TARGET
from seamount.kernels.cpu.tiles import tile_dot_int8, tile_load, tile_store, tile_zero
from seamount.kernels.cpu.vector import (
    apart,
    broadcast4,
    dot4,
    high_nibbles,
    load_bytes,
    load_ints,
    low_nibbles,
    prefetch,
    prefetch_far,
    read_int32,
    read_int64,
    shuffle16,
    store_bytes,
    store_ints,
    write_int64,
    zero_ints,
)

# Tiles of two row blocks that stay in the first-level cache beside the tokens' own, of one token tile and of more.
_WIDE_PANEL, _PANEL = 12, 8
PANEL_BYTES = 2 * _WIDE_PANEL * 1024
LISTED_BYTES = 24  # of a token in a list of those with large quads: its note, its place in the sums, its next quad


@inner
def list_quads(note, note_step, count, listed):
    """List the tokens that have large quads, for `pair_sums`; how many they are."""
    apart()
    number = 0
    for token in range(count):
        first = note + token * note_step + 8
        if read_int32(first) != END:
            place = listed + number * LISTED_BYTES
            write_int64(place, first)
            write_int64(place + 8, token // 16 * PAIR_BYTES + token % 16 * 64)
            for line in range(64, 256, 64):
                prefetch(first + line)
            number += 1
    return number


@inner
def _add_listed_quads(listed, number, first, second, begin, end, sums):
    """Add the upper bytes of the quads in tiles begin .. end - 1, whose weights are unpacked."""
    apart()
    last = np.int64(end) * 16
    for i in range(number):
        place = listed + i * LISTED_BYTES
        if begin == 0:
            write_int64(place + 16, read_int64(place))
        entry = read_int64(place + 16)
        quad = np.int64(read_int32(entry))
        if quad >= last:
            continue
        left, right = zero_ints(), zero_ints()
        while quad < last:
            at, codes = (quad - begin * 16) * 64, broadcast4(entry + 4)
            left, right = dot4(left, load_bytes(first + at), codes), dot4(right, load_bytes(second + at), codes)
            entry += 8
            quad = np.int64(read_int32(entry))
        write_int64(place + 16, entry)
        out = sums + read_int64(place + 8)
        store_ints(out, add_times(load_ints(out), left, np.int32(128)))
        store_ints(out + 1024, add_times(load_ints(out + 1024), right, np.int32(128)))


@inlined
def _panel_steps(kb, count):
    """Tiles of a panel: as many as stay in the cache, and all panels of a row block about equal."""
    most = _WIDE_PANEL if count <= 16 else _PANEL
    panels = (kb + most - 1) // most
    return (kb + panels - 1) // panels


@inlined
def _unpack_line(codes, groups, out):
    """One line of a tile as two vectors of biased bytes."""
    table, packed = tables(groups), load_bytes(codes)
    store_bytes(out, shuffle16(table, low_nibbles(packed)))
    store_bytes(out + 64, shuffle16(table, high_nibbles(packed)))


@inner
def _unpack_tiles(a, b, kb, begin, end, out):
    """Some tiles of two row blocks as biased bytes: those of `a` at `out`, those of `b` half a panel behind."""
    apart()
    for block, place in ((a, out), (b, out + PANEL_BYTES // 2)):
        for tile in range(begin, end):
            for line in range(8):
                groups, to = block + kb * 512 + tile * 32 + line * 4, place + (tile - begin) * 1024 + line * 128
                _unpack_line(block + tile * 512 + line * 64, groups, to)


if TARGET.has_amx:

    @inner
    def _dots(x, next_x, first, second, steps, sums, is_first, ahead_a, ahead_b, lines):
        """16 tokens by one panel; the next tokens (0 for none) and some lines of the next weights are asked for."""
        apart()
        # Four tile registers only: on a busy host more of them get loads and dots in each other's way (docs/log.md).
        if is_first:
            tile_zero(0)
            tile_zero(1)
        else:
            tile_load(0, sums, 64)
            tile_load(1, sums + 1024, 64)
        for tile in range(steps):
            tile_load(2, x + tile * 1024, 64)
            tile_load(3, first + tile * 1024, 64)
            tile_dot_int8(0, 2, 3)
            if next_x != 0:
                for line in range(0, 512, 64):
                    prefetch(next_x + tile * 1024 + line)
            for line in range(tile * lines, tile * lines + lines):
                prefetch_far(ahead_a + line * 64)
            tile_load(3, second + tile * 1024, 64)
            tile_dot_int8(1, 2, 3)
            if next_x != 0:
                for line in range(512, 1024, 64):
                    prefetch(next_x + tile * 1024 + line)
            for line in range(tile * lines, tile * lines + lines):
                prefetch_far(ahead_b + line * 64)
        tile_store(0, sums, 64)
        tile_store(1, sums + 1024, 64)

    @inner
    def _panel_sums(x, x_step, count, first, second, steps, sums, is_first, ahead_a, ahead_b, most):
        """All tokens by one panel, while the next `most` lines of each block for each tile come from memory."""
        apart()
        tiles = (count + 15) // 16
        each, asked = (most + tiles - 1) // tiles, np.int64(0)
        for number in range(tiles):
            lines = min(each, most - asked)
            ahead = asked * steps * 64
            place = x + number * x_step
            # Of few tokens the inputs stay in the cache. Behind the last tokens come the first ones' next inputs.
            following = np.int64(0)
            if tiles > 4:
                following = place + x_step if number + 1 < tiles else x + steps * 1024
            _dots(
                place, following, first, second, steps, sums + number * PAIR_BYTES, is_first, ahead_a + ahead,
                ahead_b + ahead, lines,
            )  # fmt: skip
            asked += lines

    @inner
    def _unpacked_sums(x, x_step, count, a, b, kb, begin, end, panel, sums, ahead_a, ahead_b, most):
        """All tokens by tiles begin .. end - 1 of two row blocks, unpacked into a panel.

        With one token tile, each tile of weights is multiplied while the next one is unpacked, and each line asks for
        one of the next weights (docs/log.md).
        """
        apart()
        if count > 16:
            _unpack_tiles(a, b, kb, begin, end, panel)
            half = panel + PANEL_BYTES // 2
            _panel_sums(x, x_step, count, panel, half, end - begin, sums, begin == 0, ahead_a, ahead_b, most)
            return
        if begin == 0:
            tile_zero(0)
            tile_zero(1)
        else:
            tile_load(0, sums, 64)
            tile_load(1, sums + 1024, 64)
        for tile in range(end - begin + 1):
            if begin + tile < end:
                for line in range(8):
                    at, groups = (begin + tile) * 512 + line * 64, kb * 512 + (begin + tile) * 32 + line * 4
                    to, ahead = panel + tile * 1024 + line * 128, tile * 512 + line * 64
                    if most > 0:
                        prefetch_far(ahead_a + ahead)
                        prefetch_far(ahead_b + ahead)
                    _unpack_line(a + at, a + groups, to)
                    _unpack_line(b + at, b + groups, to + PANEL_BYTES // 2)
            if tile > 0:
                place = panel + (tile - 1) * 1024
                tile_load(2, x + (tile - 1) * 1024, 64)
                tile_load(3, place, 64)
                tile_dot_int8(0, 2, 3)
                tile_load(3, place + PANEL_BYTES // 2, 64)
                tile_dot_int8(1, 2, 3)
        tile_store(0, sums, 64)
        tile_store(1, sums + 1024, 64)

else:

    @inner
    def _unpacked_sums(x, x_step, count, a, b, kb, begin, end, panel, sums, ahead_a, ahead_b, most):
        """All tokens by tiles begin .. end - 1 of two row blocks, unpacked into a panel."""
        apart()
        _unpack_tiles(a, b, kb, begin, end, panel)
        half = panel + PANEL_BYTES // 2
        _panel_sums(x, x_step, count, panel, half, end - begin, sums, begin == 0, ahead_a, ahead_b, most)

    _panel_sums = row_sums


@inner
def pair_sums(bits, a, b, kb, next_a, next_b, x, count, listed, number, sums, panel):
    """All tokens by two row blocks: sums (token tiles, 2, 16, 16) int32.

    The weights go by in panels that stay in the first-level cache for all tokens; while one is multiplied, the next
    comes from memory: of the same blocks, and at last of the blocks next_a and next_b (0 for none), which may be of
    another matrix of the same format. listed, number: from `list_quads`.
    """
    apart()
    steps = _panel_steps(kb, count)
    size = 1024 if bits == INT8 else 512
    for begin in range(0, kb, steps):
        end = min(kb, begin + steps)
        most, ahead_a, ahead_b, scales_a, scales_b = size // 64, a + end * size, b + end * size, a, b
        if end == kb:
            ahead_a, ahead_b, scales_a, scales_b = next_a, next_b, next_a, next_b
            if next_a == 0:
                most = 0
        first, second, inputs = a + begin * 1024, b + begin * 1024, x + begin * 1024
        if bits == INT8:
            _panel_sums(
                inputs, kb * 1024, count, first, second, end - begin, sums, begin == 0, ahead_a, ahead_b, most
            )  # fmt: skip
        else:
            scales = kb * 512 + end % kb * 32
            for line in range(0, steps * 32, 64):
                prefetch(scales_a + scales + line)
                prefetch(scales_b + scales + line)
            first, second = panel, panel + PANEL_BYTES // 2
            _unpacked_sums(inputs, kb * 1024, count, a, b, kb, begin, end, panel, sums, ahead_a, ahead_b, most)
        if number > 0:
            _add_listed_quads(listed, number, first, second, begin, end, sums)
