"""Products with packed weights: int8 activations, exact integer sums, one float scale per token and per output row.

A unit of work is two row blocks (32 outputs) by all tokens. Up to four tokens multiply the packed bytes as they stream
by; more tokens share one unpacking and, where there are tiles, meet the weights there. The upper bytes of large quads
follow one by one. The sums are integers, so every way gives the same bits.

An activation buffer holds tiles of `rows` tokens (1 or 16): code (token r, input k) of a tile stands at
`(k // 64) * rows * 64 + r * 64 + k % 64`, and every token has a note (see activations.py). The weights' bytes are
biased by 128, so 128 times the sum of a token's codes is taken off again.
"""

import numpy as np
from numba import types
from numba.extending import intrinsic

from seamount.kernels.cpu.activations import END, add_times
from seamount.kernels.cpu.compiling import inlined, inner
from seamount.kernels.cpu.group_products import group_row_bytes, is_grouped
from seamount.kernels.cpu.instructions import I64, Bytes, address, instruction, write
from seamount.kernels.cpu.target import TARGET
from seamount.kernels.cpu.tiles import tile_dot_int8, tile_load, tile_store, tile_zero
from seamount.kernels.cpu.vector import (
    add_ints,
    apart,
    broadcast4,
    dot4,
    emit_broadcast4,
    emit_dot4,
    floats,
    high_nibbles,
    ints,
    load_bytes,
    load_floats,
    load_ints,
    low_nibbles,
    multiply,
    prefetch,
    prefetch_far,
    read_float,
    read_int32,
    read_int64,
    scaled,
    scaled_fast,
    shuffle16,
    store_bytes,
    store_ints,
    to_floats,
    write_int64,
    zero_ints,
)
from seamount.kernels.packing import CODEBOOK

INT4, INT8 = 4, 8
FEW = 4  # tokens up to which the packed bytes are multiplied as they stream by
_PANEL = 8  # tiles of two row blocks that stay in the first-level cache: 16 KiB
PANEL_BYTES = 2 * _PANEL * 1024
LISTED_BYTES = 24  # of a token in a list of those with large quads: its note, its place in the sums, its next quad
PAIR_BYTES = 2048  # two tiles of 16 x 16 int32 sums
# How far ahead of the reading to ask for weights: two pages, so that the next page's address is translated in time.
_AHEAD = 4096


@instruction(Bytes, address)
def _tables(builder, place):
    """Four tables of int4's values, biased, one for each group scale at an address."""
    return (scaled_fast if TARGET.has_avx512 else scaled)(builder, tuple(int(value) for value in CODEBOOK), place)


@inlined
def product_bytes(count):
    """Scratch that products of so many tokens need: a panel, the list of large quads, and the sums."""
    return PANEL_BYTES + (count * LISTED_BYTES + 63) // 64 * 64 + (count + 15) // 16 * PAIR_BYTES


@inlined
def sums_place(scratch, count):
    """Where the sums stand in that scratch; the panel stands at its beginning, the list behind the panel."""
    return scratch + PANEL_BYTES + (count * LISTED_BYTES + 63) // 64 * 64


@inlined
def starts_place(scratch, count):
    """Where, behind that scratch, what `group_starts` writes stands, for formats with scales of groups."""
    return scratch + product_bytes(count)


@inlined
def row_bytes(bits, kb):
    """Bytes of one row block of kb tiles."""
    if is_grouped(bits):
        return group_row_bytes(bits, kb)
    if bits == INT8:
        return kb * 1024
    return (kb * 544 + 63) // 64 * 64


@inlined
def _row_int4(block, x, step, kb):
    a = zero_ints()
    b = zero_ints()
    c = zero_ints()
    d = zero_ints()
    groups = block + kb * 512
    for tile in range(kb):
        for line in range(0, 8, 2):
            place = block + tile * 512 + line * 64
            prefetch(place + _AHEAD)
            prefetch(place + _AHEAD + 64)
            values = x + tile * step + line * 8
            table = _tables(groups + tile * 32 + line * 4)
            codes = load_bytes(place)
            a = dot4(a, shuffle16(table, low_nibbles(codes)), broadcast4(values))
            b = dot4(b, shuffle16(table, high_nibbles(codes)), broadcast4(values + 4))
            table = _tables(groups + tile * 32 + line * 4 + 4)
            codes = load_bytes(place + 64)
            c = dot4(c, shuffle16(table, low_nibbles(codes)), broadcast4(values + 8))
            d = dot4(d, shuffle16(table, high_nibbles(codes)), broadcast4(values + 12))
    return add_ints(add_ints(a, b), add_ints(c, d))


@inlined
def _row_int8(block, x, step, kb):
    a = zero_ints()
    b = zero_ints()
    c = zero_ints()
    d = zero_ints()
    for tile in range(kb):
        for vector in range(0, 16, 4):
            place = block + tile * 1024 + vector * 64
            for line in range(4):
                prefetch(place + _AHEAD + line * 64)
            values = x + tile * step + vector * 4
            a = dot4(a, load_bytes(place), broadcast4(values))
            b = dot4(b, load_bytes(place + 64), broadcast4(values + 4))
            c = dot4(c, load_bytes(place + 128), broadcast4(values + 8))
            d = dot4(d, load_bytes(place + 192), broadcast4(values + 12))
    return add_ints(add_ints(a, b), add_ints(c, d))


@inlined
def _four_sums():
    zero = zero_ints()
    return zero, zero, zero, zero


@inlined
def _eight_sums():
    zero = zero_ints()
    return zero, zero, zero, zero, zero, zero, zero, zero


def _several(zeros):
    """The one-row loops for two or four tokens at once: the weights are unpacked once, and each token has two sums."""

    @inner
    def int4(block, x, step, kb, out):
        apart()
        sums = zeros()
        groups = block + kb * 512
        for tile in range(kb):
            for line in range(8):
                place = block + tile * 512 + line * 64
                prefetch(place + _AHEAD)
                table = _tables(groups + tile * 32 + line * 4)
                codes = load_bytes(place)
                low, high = shuffle16(table, low_nibbles(codes)), shuffle16(table, high_nibbles(codes))
                sums = _each_dot(sums, low, high, x + tile * step + line * 8)
        _store_sums(sums, out)

    @inner
    def int8(block, x, step, kb, out):
        apart()
        sums = zeros()
        for tile in range(kb):
            for vector in range(0, 16, 2):
                place = block + tile * 1024 + vector * 64
                prefetch(place + _AHEAD)
                prefetch(place + _AHEAD + 64)
                sums = _each_dot(sums, load_bytes(place), load_bytes(place + 64), x + tile * step + vector * 4)
        _store_sums(sums, out)

    return int4, int8


@intrinsic
def _each_dot(context, sums, low, high, x):
    """For each token, whose row stands 64 bytes behind the last one's: two sums, one more vector of weights in each."""

    def generate(context, builder, signature, values):
        total, first, second, place = values
        made = []
        for number in range(signature.return_type.count):
            weights = second if number % 2 else first
            at_token = builder.add(place, I64(number // 2 * 64 + number % 2 * 4))
            made.append(
                emit_dot4(builder, builder.extract_value(total, number), weights, emit_broadcast4(builder, at_token))
            )
        return context.make_tuple(builder, signature.return_type, made)

    return sums(sums, Bytes, Bytes, address), generate


@intrinsic
def _store_sums(context, sums, out):
    """Every token's two sums as one, 64 bytes a token."""

    def generate(context, builder, signature, values):
        total, place = values
        for token in range(signature.args[0].count // 2):
            pair = [builder.extract_value(total, 2 * token + part) for part in (0, 1)]
            write(builder, builder.add(place, I64(token * 64)), builder.add(*pair))
        return context.get_dummy_value()

    return types.void(sums, address), generate


_two_int4, _two_int8 = _several(_four_sums)
_four_int4, _four_int8 = _several(_eight_sums)


@inner
def few_products(bits, block, x, step, note, note_step, count, kb, out):
    """One to four tokens by one row block, straight from the packed bytes: count (padded to 1, 2 or 4) x 16 int32."""
    apart()
    if count == 1:
        if bits == INT8:
            store_ints(out, _row_int8(block, x, step, kb))
        else:
            store_ints(out, _row_int4(block, x, step, kb))
    elif count == 2:
        if bits == INT8:
            _two_int8(block, x, step, kb, out)
        else:
            _two_int4(block, x, step, kb, out)
    elif bits == INT8:
        _four_int8(block, x, step, kb, out)
    else:
        _four_int4(block, x, step, kb, out)
    for token in range(count):
        first = note + token * note_step + 8
        if read_int32(first) != END:
            _add_quads(bits, block, kb, first, out + token * 64)


@inner
def _add_quads(bits, block, kb, entry, out):
    """Add one token's upper bytes, from the packed bytes of one row block."""
    apart()
    total = zero_ints()
    quad = np.int64(read_int32(entry))
    while quad != END:
        if bits == INT8:
            weights = load_bytes(block + quad * 64)
        else:
            line = quad // 2
            table, codes = _tables(block + kb * 512 + line * 4), load_bytes(block + line * 64)
            weights = shuffle16(table, low_nibbles(codes) if quad % 2 == 0 else high_nibbles(codes))
        total = dot4(total, weights, broadcast4(entry + 4))
        entry += 8
        quad = np.int64(read_int32(entry))
    store_ints(out, add_times(load_ints(out), total, np.int32(128)))


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
def _panel_steps(kb):
    """Tiles of a panel: at most _PANEL, and all panels of a row block about equal."""
    panels = (kb + _PANEL - 1) // _PANEL
    return (kb + panels - 1) // panels


@inner
def _unpack_tiles(a, b, kb, begin, end, out):
    """Some tiles of two row blocks as biased bytes: those of `a` at `out`, those of `b` a panel behind."""
    apart()
    for block, place in ((a, out), (b, out + _PANEL * 1024)):
        for tile in range(begin, end):
            for line in range(8):
                table = _tables(block + kb * 512 + tile * 32 + line * 4)
                codes = load_bytes(block + tile * 512 + line * 64)
                to = place + (tile - begin) * 1024 + line * 128
                store_bytes(to, shuffle16(table, low_nibbles(codes)))
                store_bytes(to + 64, shuffle16(table, high_nibbles(codes)))


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

else:

    @inner
    def _panel_sums(x, x_step, count, first, second, steps, sums, is_first, ahead_a, ahead_b, most):
        """All tokens by one panel, after asking for the next `most` lines of each block for each tile."""
        apart()
        for line in range(most * steps):
            prefetch(ahead_a + line * 64)
            prefetch(ahead_b + line * 64)
        for row in range(count):
            place, total = x + row // 16 * x_step + row % 16 * 64, sums + row // 16 * PAIR_BYTES + row % 16 * 64
            left, right = _row_int8(first, place, 1024, steps), _row_int8(second, place, 1024, steps)
            if not is_first:
                left, right = add_ints(left, load_ints(total)), add_ints(right, load_ints(total + 1024))
            store_ints(total, left)
            store_ints(total + 1024, right)


@inner
def pair_sums(bits, a, b, kb, next_a, next_b, x, count, listed, number, sums, panel):
    """All tokens by two row blocks: sums (token tiles, 2, 16, 16) int32.

    The weights go by in panels that stay in the first-level cache for all tokens; while one is multiplied, the next
    comes from memory: of the same blocks, and at last of the blocks next_a and next_b (0 for none), which may be of
    another matrix of the same format. listed, number: from `list_quads`.
    """
    apart()
    steps = _panel_steps(kb)
    size = 1024 if bits == INT8 else 512
    for begin in range(0, kb, steps):
        end = min(kb, begin + steps)
        most, ahead_a, ahead_b, scales_a, scales_b = size // 64, a + end * size, b + end * size, a, b
        if end == kb:
            ahead_a, ahead_b, scales_a, scales_b = next_a, next_b, next_a, next_b
            if next_a == 0:
                most = 0
        first, second = a + begin * 1024, b + begin * 1024
        if bits != INT8:
            scales = kb * 512 + end % kb * 32
            for line in range(0, steps * 32, 64):
                prefetch(scales_a + scales + line)
                prefetch(scales_b + scales + line)
            _unpack_tiles(a, b, kb, begin, end, panel)
            first, second = panel, panel + _PANEL * 1024
        _panel_sums(
            x + begin * 1024, kb * 1024, count, first, second, end - begin, sums, begin == 0, ahead_a, ahead_b, most
        )
        if number > 0:
            _add_listed_quads(listed, number, first, second, begin, end, sums)


@inlined
def dequantised(bits, sums, note, row_scale):
    """16 outputs of one token from their integer sums: `(sum - bias) * scale * row_scale`, in that order.

    Sums over groups with scales are floats, and `sum * scale` is the output.
    """
    if is_grouped(bits):
        return multiply(load_floats(sums), floats(read_float(note)))
    exact = add_ints(load_ints(sums), ints(np.int32(-read_int32(note + 4))))
    return multiply(multiply(to_floats(exact), floats(read_float(note))), load_floats(row_scale))
