"""Products with packed weights: int8 activations, exact integer sums, one float scale per token and per output row.

A unit of work is two row blocks (32 outputs) by all tokens. One token multiplies the packed bytes as they stream by;
several tokens share one unpacking and, where there are tiles, meet the weights there. The sums are integers, so every
way gives the same bits.

An activation buffer holds tiles of `rows` tokens (1 or 16): byte (token r, input k) of a tile stands at
`(k // 64) * rows * 64 + r * 64 + k % 64`. The weights' bytes are biased by 128, so every token carries 128 times the
sum of its bytes to be taken off again.
"""

import numpy as np
from numba import types
from numba.extending import intrinsic

from seamount.kernels.cpu.compiling import inlined, inner
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
    read_float,
    read_int32,
    scaled,
    scaled_fast,
    shuffle16,
    store_bytes,
    store_ints,
    to_floats,
    zero_ints,
)
from seamount.kernels.packing import CODEBOOK

INT4, INT8 = 4, 8
FEW = 4  # tokens up to which the packed bytes are multiplied as they stream by
_PANEL = 8  # tiles of two row blocks that stay in the first-level cache: 16 KiB
PANEL_BYTES = 2 * _PANEL * 1024
PAIR_BYTES = 2048  # two tiles of 16 x 16 int32 sums
# How far ahead of the reading to ask for weights: two pages, so that the next page's address is translated in time.
_AHEAD = 4096


@instruction(Bytes, address)
def _tables(builder, place):
    """Four tables of int4's values, biased, one for each group scale at an address."""
    return (scaled_fast if TARGET.has_avx512 else scaled)(builder, tuple(int(value) for value in CODEBOOK), place)


@inlined
def row_bytes(bits, kb):
    """Bytes of one row block of kb tiles."""
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
def few_products(bits, block, x, step, count, kb, out):
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


@inlined
def _unpack_line(block, kb, tile, line, out):
    place = block + tile * 512 + line * 64
    prefetch(place + _AHEAD)
    table = _tables(block + kb * 512 + tile * 32 + line * 4)
    codes = load_bytes(place)
    store_bytes(out + line * 128, shuffle16(table, low_nibbles(codes)))
    store_bytes(out + line * 128 + 64, shuffle16(table, high_nibbles(codes)))


@inlined
def _panel_steps(kb):
    """Tiles of a panel: at most _PANEL, and all panels of a row block about equal."""
    panels = (kb + _PANEL - 1) // _PANEL
    return (kb + panels - 1) // panels


@inner
def _unpack_tiles(a, b, kb, begin, end, out):
    """Some tiles of two row blocks as biased bytes: those of `a` at `out`, those of `b` a panel behind."""
    apart()
    for tile in range(begin, end):
        for line in range(8):
            _unpack_line(a, kb, tile, line, out + (tile - begin) * 1024)
            _unpack_line(b, kb, tile, line, out + _PANEL * 1024 + (tile - begin) * 1024)


@inner
def first_panel(bits, a, b, kb, panels):
    """Unpack what `pair_sums` begins with."""
    apart()
    if bits != INT8:
        _unpack_tiles(a, b, kb, 0, _panel_steps(kb), panels)


if TARGET.has_amx:

    @inlined
    def _begin_tiles(sums, is_first):
        # Four tile registers only: with more of them alive, loads and dots get in each other's way (docs/log.md).
        if is_first:
            tile_zero(0)
            tile_zero(1)
        else:
            tile_load(0, sums, 64)
            tile_load(1, sums + 1024, 64)

    @inner
    def _dots(x, first, second, steps, sums, is_first):
        apart()
        _begin_tiles(sums, is_first)
        for tile in range(steps):
            tile_load(2, x + tile * 1024, 64)
            tile_load(3, first + tile * 1024, 64)
            tile_dot_int8(0, 2, 3)
            tile_load(3, second + tile * 1024, 64)
            tile_dot_int8(1, 2, 3)
        tile_store(0, sums, 64)
        tile_store(1, sums + 1024, 64)

    @inner
    def _dots_and_unpack(x, first, second, steps, sums, is_first, a, a_line, a_out, b, b_line, b_out, lines, kb, begin):
        """`_dots`; of as many tiles of `a` and `b`, from `begin` on, some lines are unpacked by the vector units."""
        apart()
        _begin_tiles(sums, is_first)
        for tile in range(steps):
            tile_load(2, x + tile * 1024, 64)
            tile_load(3, first + tile * 1024, 64)
            tile_dot_int8(0, 2, 3)
            for line in range(a_line, a_line + lines):
                _unpack_line(a, kb, begin + tile, line, a_out + tile * 1024)
            tile_load(3, second + tile * 1024, 64)
            tile_dot_int8(1, 2, 3)
            for line in range(b_line, b_line + lines):
                _unpack_line(b, kb, begin + tile, line, b_out + tile * 1024)
        tile_store(0, sums, 64)
        tile_store(1, sums + 1024, 64)

    @inner
    def _panel_sums(x, x_step, tiles, count, first, second, steps, sums, is_first, a, b, kb, begin, end, out):
        """One panel by all token tiles; tiles begin .. end - 1 of the blocks a and b are unpacked meanwhile."""
        apart()
        # The next panel may be shorter, and then its missing tiles must not be read; or longer, see below.
        shared = min(steps, end - begin)
        b_out = out + _PANEL * 1024
        for number in range(tiles):
            place, total = x + number * x_step, sums + number * PAIR_BYTES
            if shared < steps or number > 3 or (tiles < 4 and number > 1):
                _dots(place, first, second, steps, total, is_first)
            elif tiles == 1:
                _dots_and_unpack(place, first, second, steps, total, is_first, a, 0, out, b, 0, b_out, 8, kb, begin)
            elif tiles < 4:
                block, to = (a, out) if number == 0 else (b, b_out)
                _dots_and_unpack(place, first, second, steps, total, is_first, block, 0, to, block, 4, to, 4, kb, begin)
            else:
                block, to = (a, out) if number < 2 else (b, b_out)
                line = number % 2 * 4
                _dots_and_unpack(
                    place, first, second, steps, total, is_first, block, line, to, block, line + 2, to, 2, kb, begin
                )
        if begin < end:
            done = 0 if shared < steps else steps
            if done < end - begin:
                _unpack_tiles(a, b, kb, begin + done, end, out + done * 1024)

else:

    @inner
    def _panel_sums(x, x_step, tiles, count, first, second, steps, sums, is_first, a, b, kb, begin, end, out):
        """One panel by all tokens; tiles begin .. end - 1 of the blocks a and b are unpacked as well."""
        apart()
        for row in range(count):
            place, total = x + row // 16 * x_step + row % 16 * 64, sums + row // 16 * PAIR_BYTES + row % 16 * 64
            left, right = _row_int8(first, place, 1024, steps), _row_int8(second, place, 1024, steps)
            if not is_first:
                left, right = add_ints(left, load_ints(total)), add_ints(right, load_ints(total + 1024))
            store_ints(total, left)
            store_ints(total + 1024, right)
        if begin < end:
            _unpack_tiles(a, b, kb, begin, end, out)


@inner
def pair_sums(bits, a, b, kb, next_a, next_b, next_kb, x, count, sums, panels, current):
    """All tokens by two row blocks: sums (token tiles, 2, 16, 16) int32. Which of the two panel buffers comes next.

    The weights go by in panels that stay in the first-level cache for all tokens. While one panel is multiplied, the
    next is unpacked into the other of the two buffers at `panels`: the last one's next is the first of the blocks
    next_a and next_b (0 for none), so blocks can follow each other; `first_panel` begins.
    """
    apart()
    steps, tiles = _panel_steps(kb), (count + 15) // 16
    next_steps = _panel_steps(next_kb)
    for begin in range(0, kb, steps):
        end = min(kb, begin + steps)
        here, other = panels + current * PANEL_BYTES, panels + (1 - current) * PANEL_BYTES
        place = x + begin * 1024
        is_first, is_last = begin == 0, end == kb
        if bits == INT8:
            first, second = a + begin * 1024, b + begin * 1024
            if is_last and next_a != 0:
                for line in range(0, min(next_steps, 4) * 1024, 64):
                    prefetch(next_a + line)
                    prefetch(next_b + line)
            elif not is_last:
                for line in range(0, steps * 1024, 64):
                    prefetch(a + end * 1024 + line)
                    prefetch(b + end * 1024 + line)
            _panel_sums(
                place, kb * 1024, tiles, count, first, second, end - begin, sums, is_first, 0, 0, kb, 0, 0, other
            )
            continue
        second = here + _PANEL * 1024
        if is_last and next_a != 0:
            _panel_sums(
                place, kb * 1024, tiles, count, here, second, end - begin, sums, is_first, next_a, next_b, next_kb, 0,
                next_steps, other,
            )  # fmt: skip
        elif is_last:
            _panel_sums(
                place, kb * 1024, tiles, count, here, second, end - begin, sums, is_first, 0, 0, kb, 0, 0, other
            )
        else:
            _panel_sums(
                place, kb * 1024, tiles, count, here, second, end - begin, sums, is_first, a, b, kb, end,
                min(kb, end + steps), other,
            )  # fmt: skip
        current = 1 - current
    return current


@inlined
def dequantised(sums, scale, bias, row_scale):
    """16 outputs of one token from their integer sums: `(sum - bias) * scale * row_scale`, in that order."""
    exact = add_ints(load_ints(sums), ints(np.int32(-read_int32(bias))))
    return multiply(multiply(to_floats(exact), floats(read_float(scale))), load_floats(row_scale))
