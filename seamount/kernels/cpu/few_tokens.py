"""Up to four tokens by two packed row blocks: the weights are multiplied as they stream by, unpacked once for all.

Memory gives most where several places are read at once: the two blocks go by together, and for one token each from two
places. Every line asks for the same line of the blocks that are read next, so that it has come when its turn does.
"""

import numpy as np
from numba import types
from numba.extending import intrinsic

from seamount.kernels.cpu.activations import END, add_times
from seamount.kernels.cpu.compiling import inlined, inner, inner_for
from seamount.kernels.cpu.instructions import I64, Bytes, address, write
from seamount.kernels.cpu.packed_blocks import INT8, tables
from seamount.kernels.cpu.target import TARGET
from seamount.kernels.cpu.vector import (
    add_ints,
    apart,
    broadcast4,
    dot4,
    emit_broadcast4,
    emit_dot4,
    high_nibbles,
    load_bytes,
    load_ints,
    low_nibbles,
    prefetch_far,
    read_int32,
    shuffle16,
    store_ints,
    zero_ints,
)

FEW = 4  # tokens up to which the packed bytes are multiplied as they stream by
_HAS_REGISTERS = TARGET.has_avx512  # for twice the sums


@inlined
def _ask_for_groups(next_a, next_b, kb, tile):
    """int4's multipliers of a tile stand behind all tiles."""
    prefetch_far(next_a + kb * 512 + tile * 32)
    prefetch_far(next_b + kb * 512 + tile * 32)


@inlined
def _ask_for_nothing(next_a, next_b, kb, tile):
    """int8 has nothing beside its tiles."""


@inlined
def _line_int4(block, kb, tile, line, after, x, step, low, high):
    """Two vectors of a block, one more in each of one token's sums."""
    at, values = tile * 512 + line * 64, x + tile * step + line * 8
    prefetch_far(after + at)
    table, codes = tables(block + kb * 512 + tile * 32 + line * 4), load_bytes(block + at)
    low = dot4(low, shuffle16(table, low_nibbles(codes)), broadcast4(values))
    return low, dot4(high, shuffle16(table, high_nibbles(codes)), broadcast4(values + 4))


@inlined
def _line_int8(block, kb, tile, line, after, x, step, even, odd):
    """The same, of int8."""
    at, values = tile * 1024 + line * 128, x + tile * step + line * 8
    prefetch_far(after + at)
    prefetch_far(after + at + 64)
    even = dot4(even, load_bytes(block + at), broadcast4(values))
    return even, dot4(odd, load_bytes(block + at + 64), broadcast4(values + 4))


def _one(format, line_of, ask_beside):
    """One token by two blocks, each from two places."""

    @inner_for(format)
    def one(a, b, next_a, next_b, x, step, kb, out):
        apart()
        zero = zero_ints()
        a0, a1, a2, a3, b0, b1, b2, b3 = zero, zero, zero, zero, zero, zero, zero, zero
        half = kb // 2 if _HAS_REGISTERS else 0
        for tile in range(half):
            ask_beside(next_a, next_b, kb, tile)
            ask_beside(next_a, next_b, kb, tile + half)
            for line in range(8):
                a0, a1 = line_of(a, kb, tile, line, next_a, x, step, a0, a1)
                b0, b1 = line_of(b, kb, tile, line, next_b, x, step, b0, b1)
                a2, a3 = line_of(a, kb, tile + half, line, next_a, x, step, a2, a3)
                b2, b3 = line_of(b, kb, tile + half, line, next_b, x, step, b2, b3)
        for tile in range(2 * half, kb):
            ask_beside(next_a, next_b, kb, tile)
            for line in range(8):
                a0, a1 = line_of(a, kb, tile, line, next_a, x, step, a0, a1)
                b0, b1 = line_of(b, kb, tile, line, next_b, x, step, b0, b1)
        store_ints(out, add_ints(add_ints(a0, a1), add_ints(a2, a3)))
        store_ints(out + 1024, add_ints(add_ints(b0, b1), add_ints(b2, b3)))

    return one


_one_int4, _one_int8 = _one("int4", _line_int4, _ask_for_groups), _one("int8", _line_int8, _ask_for_nothing)


@inlined
def _four_sums():
    zero = zero_ints()
    return zero, zero, zero, zero


@inlined
def _eight_sums():
    zero = zero_ints()
    return zero, zero, zero, zero, zero, zero, zero, zero


def _several(tokens, zeros):
    """The same for two or four tokens: each has two sums of each block."""

    @inner_for(tokens)
    def int4(a, b, next_a, next_b, x, step, kb, out):
        apart()
        first, second = zeros(), zeros()
        for tile in range(kb):
            _ask_for_groups(next_a, next_b, kb, tile)
            for line in range(8):
                at, groups, values = tile * 512 + line * 64, kb * 512 + tile * 32 + line * 4, x + tile * step + line * 8
                prefetch_far(next_a + at)
                prefetch_far(next_b + at)
                table, codes = tables(a + groups), load_bytes(a + at)
                low, high = shuffle16(table, low_nibbles(codes)), shuffle16(table, high_nibbles(codes))
                first = _each_dot(first, low, high, values)
                table, codes = tables(b + groups), load_bytes(b + at)
                low, high = shuffle16(table, low_nibbles(codes)), shuffle16(table, high_nibbles(codes))
                second = _each_dot(second, low, high, values)
        _store_sums(first, out)
        _store_sums(second, out + 1024)

    @inner_for(tokens)
    def int8(a, b, next_a, next_b, x, step, kb, out):
        apart()
        first, second = zeros(), zeros()
        for tile in range(kb):
            for vector in range(0, 16, 2):
                at, values = tile * 1024 + vector * 64, x + tile * step + vector * 4
                for line in range(0, 128, 64):
                    prefetch_far(next_a + at + line)
                    prefetch_far(next_b + at + line)
                first = _each_dot(first, load_bytes(a + at), load_bytes(a + at + 64), values)
                second = _each_dot(second, load_bytes(b + at), load_bytes(b + at + 64), values)
        _store_sums(first, out)
        _store_sums(second, out + 1024)

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


_two_int4, _two_int8 = _several("two", _four_sums)
_four_int4, _four_int8 = _several("four", _eight_sums)


@inner
def few_products(bits, a, b, next_a, next_b, x, step, note, note_step, count, kb, out):
    """One to four tokens by two row blocks, straight from the packed bytes: sums (2, 16, 16) int32.

    next_a, next_b: the row blocks that are read next, 0 for none.
    """
    apart()
    if next_a == 0:
        next_a, next_b = a, b
    if count == 1:
        if bits == INT8:
            _one_int8(a, b, next_a, next_b, x, step, kb, out)
        else:
            _one_int4(a, b, next_a, next_b, x, step, kb, out)
    elif count == 2:
        if bits == INT8:
            _two_int8(a, b, next_a, next_b, x, step, kb, out)
        else:
            _two_int4(a, b, next_a, next_b, x, step, kb, out)
    elif bits == INT8:
        _four_int8(a, b, next_a, next_b, x, step, kb, out)
    else:
        _four_int4(a, b, next_a, next_b, x, step, kb, out)
    for token in range(count):
        first = note + token * note_step + 8
        if read_int32(first) != END:
            _add_quads(bits, a, kb, first, out + token * 64)
            _add_quads(bits, b, kb, first, out + token * 64 + 1024)


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
            table, codes = tables(block + kb * 512 + line * 4), load_bytes(block + line * 64)
            weights = shuffle16(table, low_nibbles(codes) if quad % 2 == 0 else high_nibbles(codes))
        total = dot4(total, weights, broadcast4(entry + 4))
        entry += 8
        quad = np.int64(read_int32(entry))
    store_ints(out, add_times(load_ints(out), total, np.int32(128)))
