"""Products with GGUF's own weights: exact integer sums over groups of 32 inputs, added as floats in one fixed order.

For each token and output, from 0 on, every sum rounded once (`fma`):
1. for each group, ascending: plus (the sum of lower codes times the weights' integers) * scale, then, where the format
   has minima, plus (the sum of the lower codes) * minimum;
2. for each large quad of the token's note, ascending: plus the same of its upper codes times 128, with the scale and
   minimum of its group.
The token's own scale comes last (`products.dequantised`). Nothing depends on the other tokens or on the instructions.
"""

import numpy as np
from llvmlite import ir
from numba import types

from seamount.kernels.cpu.activations import END
from seamount.kernels.cpu.compiling import inlined, inlined_for, inner, inner_for
from seamount.kernels.cpu.instructions import (
    I16,
    I32,
    I64,
    Bytes,
    Floats,
    Ints,
    address,
    constant,
    instruction,
    pick,
    read,
    splat,
    write,
)
from seamount.kernels.cpu.target import TARGET
from seamount.kernels.cpu.vector import (
    add_ints,
    apart,
    broadcast4,
    dot4,
    emit_dot4,
    floats,
    fma,
    high_nibbles,
    ints,
    load_bytes,
    load_floats,
    low_nibbles,
    prefetch,
    read_float,
    read_int32,
    store_floats,
    to_floats,
    zero_ints,
)
from seamount.kernels.group_packing import CODE_BYTES, OFFSET, TILE_BYTES

Q4_0, Q4_1, Q8_0 = 40, 41, 80  # in a matrix record's bits
GROUP_BITS = {"q4_0": Q4_0, "q4_1": Q4_1, "q8_0": Q8_0}
_AHEAD = 4096
_CHUNK = 32  # tokens that share one unpacking: their codes and sums stay in the first-level cache
_ZERO = np.float32(0)


@instruction(Floats, address)
def load_float16(builder, place):
    """16 float16, widened."""
    half = read(builder, place, ir.VectorType(I16, 16))
    if TARGET.has_avx512:
        return builder.fpext(builder.bitcast(half, ir.VectorType(ir.HalfType(), 16)), Floats.ir_type)
    # Elsewhere LLVM might call a library for this. The exponent's bias differs by 112; the product is exact.
    bits = builder.zext(half, Ints.ir_type)
    magnitude = builder.shl(builder.and_(bits, constant(Ints.ir_type, 0x7FFF)), constant(Ints.ir_type, 13))
    value = builder.fmul(builder.bitcast(magnitude, Floats.ir_type), constant(Floats.ir_type, 2.0**112))
    sign = builder.shl(builder.and_(bits, constant(Ints.ir_type, 0x8000)), constant(Ints.ir_type, 16))
    return builder.bitcast(builder.or_(builder.bitcast(value, Ints.ir_type), sign), Floats.ir_type)


@instruction(Ints, Bytes)
def sum4(builder, signed):
    """The sum of every four bytes."""
    return emit_dot4(builder, constant(Ints.ir_type, 0), constant(Bytes.ir_type, 1), signed)


@instruction(Ints, Ints)
def times128(builder, value):
    """What upper codes count, from their sums."""
    return builder.shl(value, constant(Ints.ir_type, 7))


@instruction(Ints, Ints, types.int32)
def times(builder, value, factor):
    """Lane by lane; wraps at 32 bits."""
    return builder.mul(value, splat(builder, factor, Ints.ir_type))


def _store_sums(builder, codes, out, gap, factor):
    total = emit_dot4(builder, constant(Ints.ir_type, 0), constant(Bytes.ir_type, 1), codes)
    for distance in (4, 2, 1):
        total = builder.add(total, pick(builder, total, [lane ^ distance for lane in range(16)]))
    total = builder.mul(total, constant(Ints.ir_type, factor)) if factor else builder.sitofp(total, Floats.ir_type)
    for group in (0, 1):
        place = builder.add(out, builder.mul(gap, I64(group)))
        write(builder, place, builder.extract_element(total, I32(group * 8)))


@instruction(types.void, Bytes, address, address)
def _store_starts_8(builder, codes, out, gap):
    _store_sums(builder, codes, out, gap, -OFFSET["q4_0"])


@instruction(types.void, Bytes, address, address)
def _store_starts_128(builder, codes, out, gap):
    _store_sums(builder, codes, out, gap, -OFFSET["q8_0"])


@instruction(types.void, Bytes, address, address)
def _store_float_sums(builder, codes, out, gap):
    _store_sums(builder, codes, out, gap, 0)


@inlined
def is_grouped(bits):
    """Whether a matrix record's bits mean one of these formats."""
    return bits >= Q4_0


@inlined
def group_row_bytes(bits, kb):
    """Bytes of one row block of kb tiles."""
    if bits == Q4_0:
        return kb * 576
    if bits == Q4_1:
        return kb * 640
    return kb * 1088


def start_bytes(count, kb):
    """Scratch that `group_starts` fills for so many tokens and tiles."""
    return count * kb * 8


@inner
def group_starts(bits, x, step, count, kb, out):
    """What the sums over each group begin with, (2 kb, count): int32, or for q4_1 the group's sum of codes, float32.

    The integers take off what the weights' codes are too large by.
    """
    apart()
    gap = count * 4
    for token in range(count):
        row = x + token // 16 * kb * 1024 + token % 16 * 64
        for tile in range(kb):
            codes, place = load_bytes(row + tile * step), out + tile * 2 * gap + token * 4
            if bits == Q4_0:
                _store_starts_8(codes, place, gap)
            elif bits == Q4_1:
                _store_float_sums(codes, place, gap)
            else:
                _store_starts_128(codes, place, gap)


@inlined
def _nibble_vectors(place):
    a, b, c, d = load_bytes(place), load_bytes(place + 64), load_bytes(place + 128), load_bytes(place + 192)
    return (
        low_nibbles(a), high_nibbles(a), low_nibbles(b), high_nibbles(b),
        low_nibbles(c), high_nibbles(c), low_nibbles(d), high_nibbles(d),
    )  # fmt: skip


@inlined
def _byte_vectors(place):
    return (
        load_bytes(place), load_bytes(place + 64), load_bytes(place + 128), load_bytes(place + 192),
        load_bytes(place + 256), load_bytes(place + 320), load_bytes(place + 384), load_bytes(place + 448),
    )  # fmt: skip


@instruction(Bytes, Bytes, types.int64)
def _half_of(builder, pair, number):
    """The lower or the upper half of every byte, as the number is even or odd; without a branch."""
    odd = builder.and_(builder.trunc(number, I32), I32(1))
    shift = splat(builder, builder.mul(odd, I32(4)), Ints.ir_type)
    shifted = builder.lshr(builder.bitcast(pair, Ints.ir_type), shift)
    return builder.and_(builder.bitcast(shifted, Bytes.ir_type), constant(Bytes.ir_type, 15))


@inlined
def _nibble_vector(tile, number):
    return _half_of(load_bytes(tile + number // 2 * 64), number)


@inlined
def _byte_vector(tile, number):
    return load_bytes(tile + number * 64)


@inlined
def _dots(start, weights, x):
    """One token's sum over a group."""
    a = dot4(start, weights[0], broadcast4(x))
    b = dot4(zero_ints(), weights[1], broadcast4(x + 4))
    a = dot4(a, weights[2], broadcast4(x + 8))
    b = dot4(b, weights[3], broadcast4(x + 12))
    a = dot4(a, weights[4], broadcast4(x + 16))
    b = dot4(b, weights[5], broadcast4(x + 20))
    a = dot4(a, weights[6], broadcast4(x + 24))
    b = dot4(b, weights[7], broadcast4(x + 28))
    return to_floats(add_ints(a, b))


@inlined
def _ask(tile, size):
    for line in range(0, size, 64):
        prefetch(tile + _AHEAD + line)


def _of(format, vectors, vector):
    """The loops of one format: one token, several, and a token's large quads."""
    codes, size, offset = CODE_BYTES[format], TILE_BYTES[format], np.int32(OFFSET[format])
    half, has_minimum = codes // 2, format == "q4_1"

    @inlined_for(format)
    def begin(start):
        if has_minimum:
            return zero_ints()
        return ints(read_int32(start))

    @inlined_for(format)
    def add(total, start, weights, x, scales):
        total = fma(_dots(begin(start), weights, x), load_float16(scales), total)
        if has_minimum:
            total = fma(floats(read_float(start)), load_float16(scales + 64), total)
        return total

    @inner_for(format)
    def one(block, x, step, kb, starts, out):
        apart()
        total = floats(_ZERO)
        for number in range(kb):
            tile, row, start = block + number * size, x + number * step, starts + number * 8
            _ask(tile, size)
            total = add(total, start, vectors(tile), row, tile + codes)
            total = add(total, start + 4, vectors(tile + half), row + 32, tile + codes + 32)
        store_floats(out, total)

    @inner_for(format)
    def several(block, x, step, first, last, count, kb, starts, out, tile_step):
        apart()
        for token in range(first, last):
            store_floats(out + token // 16 * tile_step + token % 16 * 64, floats(_ZERO))
        for number in range(2 * kb):
            tile = block + number // 2 * size
            if number % 2 == 0:
                _ask(tile, size)
            scales = tile + codes + number % 2 * 32
            weights, scale, minimum = vectors(tile + number % 2 * half), load_float16(scales), floats(_ZERO)
            if has_minimum:
                minimum = load_float16(scales + 64)
            for sixteen in range(first // 16, (last + 15) // 16):
                row = x + sixteen * kb * 1024 + number // 2 * step + number % 2 * 32
                start = starts + (number * count + sixteen * 16) * 4
                sums = out + sixteen * tile_step
                for token in range(min(16, last - sixteen * 16)):
                    total = load_floats(sums + token * 64)
                    total = fma(_dots(begin(start + token * 4), weights, row + token * 64), scale, total)
                    if has_minimum:
                        total = fma(floats(read_float(start + token * 4)), minimum, total)
                    store_floats(sums + token * 64, total)

    @inner_for(format)
    def add_quads(a, b, entry, out):
        apart()
        first, second = load_floats(out), load_floats(out + 1024)
        quad = np.int64(read_int32(entry))
        while quad != END:
            place, vector_of_tile = quad // 16 * size, quad % 16
            scales = place + codes + vector_of_tile // 8 * 32
            upper = broadcast4(entry + 4)
            count = times128(sum4(upper))
            less = times(count, -offset)
            left = dot4(zero_ints(), vector(a + place, vector_of_tile), upper)
            right = dot4(zero_ints(), vector(b + place, vector_of_tile), upper)
            left, right = add_ints(times128(left), less), add_ints(times128(right), less)
            first = fma(to_floats(left), load_float16(a + scales), first)
            second = fma(to_floats(right), load_float16(b + scales), second)
            if has_minimum:
                first = fma(to_floats(count), load_float16(a + scales + 64), first)
                second = fma(to_floats(count), load_float16(b + scales + 64), second)
            entry += 8
            quad = np.int64(read_int32(entry))
        store_floats(out, first)
        store_floats(out + 1024, second)

    return one, several, add_quads


_one_q4_0, _several_q4_0, _quads_q4_0 = _of("q4_0", _nibble_vectors, _nibble_vector)
_one_q4_1, _several_q4_1, _quads_q4_1 = _of("q4_1", _nibble_vectors, _nibble_vector)
_one_q8_0, _several_q8_0, _quads_q8_0 = _of("q8_0", _byte_vectors, _byte_vector)


@inner
def _lower_sums(bits, block, x, step, count, kb, starts, out, tile_step):
    apart()
    if count == 1:
        if bits == Q4_0:
            _one_q4_0(block, x, step, kb, starts, out)
        elif bits == Q4_1:
            _one_q4_1(block, x, step, kb, starts, out)
        else:
            _one_q8_0(block, x, step, kb, starts, out)
        return
    for first in range(0, count, _CHUNK):
        last = min(count, first + _CHUNK)
        if bits == Q4_0:
            _several_q4_0(block, x, step, first, last, count, kb, starts, out, tile_step)
        elif bits == Q4_1:
            _several_q4_1(block, x, step, first, last, count, kb, starts, out, tile_step)
        else:
            _several_q8_0(block, x, step, first, last, count, kb, starts, out, tile_step)


@inner
def group_pair_sums(bits, a, b, x, step, note, note_step, count, kb, starts, sums, tile_step):
    """All tokens by two row blocks, which may be the same: sums of 16 float32, starts from `group_starts`.

    Layout: token t at `sums + t // 16 * tile_step + t % 16 * 64`, those of `b` 1,024 bytes behind.
    """
    apart()
    _lower_sums(bits, a, x, step, count, kb, starts, sums, tile_step)
    if b != a:
        _lower_sums(bits, b, x, step, count, kb, starts, sums + 1024, tile_step)
    for token in range(count):
        entry = note + token * note_step + 8
        if read_int32(entry) != END:
            place = sums + token // 16 * tile_step + token % 16 * 64
            if bits == Q4_0:
                _quads_q4_0(a, b, entry, place)
            elif bits == Q4_1:
                _quads_q4_1(a, b, entry, place)
            else:
                _quads_q8_0(a, b, entry, place)
