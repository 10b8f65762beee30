"""Cached rows with int8 numbers, written and read: `kernels.row_format.RowFormat` is the specification.

`first`, `count`: the numbers of a row that are meant; `first` is where a group begins.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from seamount.kernels.cpu.compiling import inlined, inner
from seamount.kernels.cpu.instructions import I8, I16, I32, Floats, Ints, address, constant, instruction, read, splat
from seamount.kernels.cpu.instructions import write as write_vector
from seamount.kernels.cpu.partial import load_part, store_part
from seamount.kernels.cpu.vector import (
    add,
    apart,
    divide,
    floats,
    larger,
    magnitude,
    max_lanes,
    multiply,
    prefetch_far,
    read_float,
    store_ints,
    store_low_bytes,
    sum_lanes,
    to_ints,
    write_float,
    zero_ints,
)
from seamount.kernels.row_format import SMALLEST_TOP

_ZERO, _TOP, _SMALLEST = np.float32(0), np.float32(127), np.float32(SMALLEST_TOP)
_NAN = np.float32("nan")


def _product(builder: ir.IRBuilder, place: ir.Value, scale: ir.Value) -> ir.Value:
    codes = builder.sext(read(builder, place, ir.VectorType(I8, 16)), Ints.ir_type)
    return builder.fmul(builder.sitofp(codes, Floats.ir_type), splat(builder, scale, Floats.ir_type))


@instruction(Floats, address, types.float32)
def _decoded(builder: Any, place: Any, scale: Any) -> Any:
    """16 int8 times a scale."""
    return _product(builder, place, scale)


@instruction(types.void, address, types.float32, address)
def _decode_bfloat16(builder: Any, place: Any, scale: Any, out: Any) -> None:
    """32 int8 times a scale that is no odd kind of NaN, rounded to the nearest bfloat16, ties to even."""
    halves = []
    for part in (0, 16):
        product = _product(builder, builder.add(place, ir.Constant(place.type, part)), scale)
        bits = builder.bitcast(product, Ints.ir_type)
        odd = builder.and_(builder.lshr(bits, constant(Ints.ir_type, 16)), constant(Ints.ir_type, 1))
        rounded = builder.add(builder.add(bits, constant(Ints.ir_type, 0x7FFF)), odd)
        halves.append(builder.bitcast(rounded, ir.VectorType(I16, 32)))
    upper = ir.Constant(ir.VectorType(I32, 32), list(range(1, 64, 2)))
    write_vector(builder, out, builder.shuffle_vector(*halves, upper))


@inner
def _encode_group(source, count, is_bfloat16, out, scale):
    apart()
    best, finite = floats(_ZERO), floats(_ZERO)
    for i in range(0, count, 16):
        value = load_part(source, i, count, is_bfloat16)
        best = larger(magnitude(value), best)
        finite = add(finite, multiply(value, floats(_ZERO)))  # 0, or no number
    top = max(max_lanes(best), _SMALLEST)
    write_float(scale, max_lanes(divide(floats(top), floats(_TOP))) + sum_lanes(finite))
    inverse = divide(floats(_TOP), floats(top))
    for i in range(0, count, 16):
        store_low_bytes(out + i, to_ints(multiply(load_part(source, i, count, is_bfloat16), inverse)))


@inlined
def _compressed_part(first, count, compressed):
    return min(count, max(0, compressed - first))


@inlined
def _rest(first, compressed, group):
    """Where the first of these numbers that is not compressed stands in a row."""
    return compressed + compressed // group * 4 + max(0, first - compressed) * 2


@inner
def encode(source, is_bfloat16, first, count, compressed, group, row):
    """Write `count` numbers, float32 or bfloat16, into a row."""
    apart()
    size, whole = 2 if is_bfloat16 else 4, _compressed_part(first, count, compressed)
    for i in range(0, whole, group):
        place = row + compressed + (first + i) // group * 4
        _encode_group(source + i * size, group, is_bfloat16, row + first + i, place)
    for i in range(whole, count, 16):
        value = load_part(source, i, count, is_bfloat16)
        store_part(row + _rest(first, compressed, group), i - whole, count - whole, True, value)


@inner
def decode(source, stride, rows, first, count, compressed, group, is_bfloat16, out, out_stride, ahead):
    """Numbers of rows as float32 or bfloat16; zeros up to `out_stride`, a multiple of 64, and to 32 or 64 rows.

    ahead: the rows that will be decoded next, fetched while these are worked on.
    """
    apart()
    whole, size = _compressed_part(first, count, compressed), 2 if is_bfloat16 else 4
    pairs = group // 32 * 32
    for row in range(rows):
        place, line = source + row * stride, out + row * out_stride
        later = ahead + row * stride
        for i in range(0, whole, 64):
            prefetch_far(later + first + i)
        for i in range(0, whole // group * 4 + (count - whole) * 2, 64):
            prefetch_far(later + compressed + first // group * 4 + i)
        for i in range(count * size // 64 * 64, out_stride, 64):
            store_ints(line + i, zero_ints())
        for i in range(0, whole, group):
            scale = read_float(place + compressed + (first + i) // group * 4)
            if scale != scale:
                scale = _NAN
            codes, end = place + first, i
            if is_bfloat16:
                end = i + pairs
                for j in range(i, end, 32):
                    _decode_bfloat16(codes + j, scale, line + j * 2)
            for j in range(end, i + group, 16):
                store_part(line, j, count, is_bfloat16, _decoded(codes + j, scale))
        for i in range(whole, count, 16):
            value = load_part(place + _rest(first, compressed, group), i - whole, count - whole, True)
            store_part(line, i, count, is_bfloat16, value)
    for i in range(rows * out_stride, (rows + 31) // 32 * 32 * out_stride, 64):
        store_ints(out + i, zero_ints())
