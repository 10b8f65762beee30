"""A token's row as int8: one scale, and a second byte for the few largest quads of four inputs.

One scale for a whole row leaves most inputs with a few levels where some are far larger than the rest. So the scale is
set for the rest, as low as it goes while at most one quad in sixteen exceeds it; the codes of those quads are wider,
and their upper parts stand in a list beside the row. Sums of products stay exact integers.

The note of a row: its scale (float32), 128 times the sum of its codes (int32), then for each large quad its number and
its four upper bytes, and END. `kernels.packing.quantise_rows` is the specification.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from seamount.kernels.cpu.compiling import inlined, inner
from seamount.kernels.cpu.instructions import I32, Floats, Ints, constant, instruction, pick, splat
from seamount.kernels.cpu.vector import (
    add_ints,
    apart,
    floats,
    fma,
    keep_lanes,
    larger,
    load_floats,
    magnitude,
    max_lanes,
    multiply,
    prefetch,
    read_int32,
    store_floats,
    store_low_bytes,
    sum_ints,
    sum_lanes,
    to_ints,
    write_float,
    write_int32,
    zero_ints,
)
from seamount.kernels.packing import LEAST_REACH, REACHES, SMALLEST_TOP

END = 0x7FFFFFFF  # behind the last large quad, and above every quad's number
_REACHES = np.array(REACHES, np.float32)
_COUNT = len(REACHES)
_SMALLEST = np.float32(SMALLEST_TOP)
_HIGHEST = np.finfo(np.float32).max


@inlined
def note_bytes(kb):
    """Bytes of the note of a row of kb tiles; a vector's upper bytes are written before they are sorted out."""
    return (8 + kb * 8 + 8 + 16 + 63) // 64 * 64


def _lanes(builder: ir.IRBuilder, left: ir.Value, right: ir.Value, lanes: tuple[int, ...]) -> ir.Value:
    """For each quad four lanes of two vectors' same quads: 0 to 3 of the left one, 4 to 7 of the right one."""
    places = [quad * 4 + lane % 4 + lane // 4 * 16 for quad in range(4) for lane in lanes]
    return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(I32, 16), places))


def _larger(builder: ir.IRBuilder, left: ir.Value, right: ir.Value) -> ir.Value:
    return builder.select(builder.fcmp_ordered(">", left, right), left, right)


@instruction(Floats, Floats, Floats, Floats, Floats)
def quad_maxima(builder: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """The largest of every four lanes of four vectors; the sixteen of them stand in no useful order."""
    low = _larger(builder, _lanes(builder, a, b, (0, 4, 1, 5)), _lanes(builder, a, b, (2, 6, 3, 7)))
    high = _larger(builder, _lanes(builder, c, d, (0, 4, 1, 5)), _lanes(builder, c, d, (2, 6, 3, 7)))
    return _larger(builder, _lanes(builder, low, high, (0, 1, 4, 5)), _lanes(builder, low, high, (2, 3, 6, 7)))


@instruction(Ints, Ints, Floats, types.float32)
def count_above(builder: Any, total: Any, value: Any, bound: Any) -> Any:
    """One more in every lane whose value is above the bound."""
    is_above = builder.fcmp_ordered(">", value, splat(builder, bound, Floats.ir_type))
    return builder.add(total, builder.zext(is_above, Ints.ir_type))


@instruction(types.boolean, Floats, types.float32)
def any_above(builder: Any, value: Any, bound: Any) -> Any:
    """Whether any lane is above the bound."""
    is_above = builder.fcmp_ordered(">", value, splat(builder, bound, Floats.ir_type))
    bits = builder.bitcast(is_above, ir.IntType(16))
    return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(16), 0))


@instruction(Ints, Ints, Floats, types.float32)
def upper_codes(builder: Any, codes: Any, sizes: Any, bound: Any) -> Any:
    """In quads with a size above the bound, `(code + 64) >> 7`; elsewhere 0."""
    pairs = _larger(builder, sizes, pick(builder, sizes, [lane ^ 1 for lane in range(16)]))
    quads = _larger(builder, pairs, pick(builder, pairs, [lane ^ 2 for lane in range(16)]))
    is_large = builder.fcmp_ordered(">", quads, splat(builder, bound, Floats.ir_type))
    upper = builder.ashr(builder.add(codes, constant(Ints.ir_type, 64)), constant(Ints.ir_type, 7))
    return builder.select(is_large, upper, constant(Ints.ir_type, 0))


@instruction(Ints, Ints, Ints, types.int32)
def add_times(builder: Any, total: Any, value: Any, factor: Any) -> Any:
    """`total + value * factor`, lane by lane; wraps at 32 bits."""
    return builder.add(total, builder.mul(value, splat(builder, factor, Ints.ir_type)))


@inlined
def _part(x, left):
    """Sixteen numbers at `x`, zeros where fewer are left; reads nothing where none is."""
    if left <= 0:
        return floats(np.float32(0))
    return keep_lanes(load_floats(x), left, np.float32(0))


@inner
def _large_quads(maxima, step, tiles, bound):
    apart()
    total = zero_ints()
    for tile in range(tiles):
        total = count_above(total, load_floats(maxima + tile * step), bound)
    return sum_ints(total)


@inner
def _reach(maxima, step, tiles, largest):
    """The furthest that the limit may go below the largest number: an index of REACHES."""
    apart()
    if not largest >= _SMALLEST or _large_quads(maxima, step, tiles, largest * _REACHES[LEAST_REACH]) > tiles:
        return 0
    good, bad = LEAST_REACH, _COUNT
    while bad - good > 1:
        middle = (good + bad) // 2
        if _large_quads(maxima, step, tiles, largest * _REACHES[middle]) > tiles:
            bad = middle
        else:
            good = middle
    return good


@inlined
def _note_quads(entry, upper, first):
    """Add the large ones of four quads to a list; where it then ends."""
    store_low_bytes(entry, upper)
    a, b, c, d = read_int32(entry), read_int32(entry + 4), read_int32(entry + 8), read_int32(entry + 12)
    for number, codes in ((0, a), (1, b), (2, c), (3, d)):
        # The largest number of a large quad is above 127, so its upper part is not zero.
        if codes != 0:
            write_int32(entry, np.int32(first + number))
            write_int32(entry + 4, codes)
            entry += 8
    return entry


@inner
def quantise(x, gap, count, out, step, note):
    """A row of float32 as int8 codes and a note.

    `gap` is the distance in bytes from one 16 of its numbers to the next: 64 where they are contiguous.

    Layout: code k at `out + (k // 64) * step + k % 64`, zeros up to a multiple of 64. Reads the row up to a multiple of
    16, whatever stands there. A row that is not finite gets a scale that is not a number.
    """
    apart()
    tiles, nothing = (count + 63) // 64, np.float32(0)
    most = floats(nothing)
    fault = most  # becomes not a number with any number that is not finite, which a maximum would drop
    for tile in range(tiles):
        place, left = x + tile * 4 * gap, count - tile * 64
        a, b = _part(place, left), _part(place + gap, left - 16)
        c, d = _part(place + 2 * gap, left - 32), _part(place + 3 * gap, left - 48)
        # Where numbers are far apart, the next row stands between them.
        for line in range(0, 4 * gap, gap):
            prefetch(place + line + 64)
        for part in (a, b, c, d):
            fault = fma(part, floats(nothing), fault)
        maxima = quad_maxima(magnitude(a), magnitude(b), magnitude(c), magnitude(d))
        most = larger(maxima, most)
        # The codes' place holds the maxima until the codes are known.
        store_floats(out + tile * step, maxima)
    largest = max_lanes(most)
    limit = largest * _REACHES[_reach(out, step, tiles, largest)]
    inverse = nothing
    if limit > nothing:
        inverse = np.float32(127) / limit
    if inverse > _HIGHEST:
        inverse = nothing
    entry, total = note + 8, zero_ints()
    for tile in range(tiles):
        has_large = any_above(load_floats(out + tile * step), limit)
        for part in range(4):
            value = _part(x + (tile * 4 + part) * gap, count - tile * 64 - part * 16)
            codes = to_ints(multiply(value, floats(inverse)))
            total = add_ints(total, codes)
            if has_large:
                upper = upper_codes(codes, magnitude(value), limit)
                codes = add_times(codes, upper, np.int32(-128))
                entry = _note_quads(entry, upper, (tile * 4 + part) * 4)
            store_low_bytes(out + tile * step + part * 16, codes)
    write_int32(entry, np.int32(END))
    write_float(note, limit / np.float32(127) + sum_lanes(fault))
    write_int32(note + 4, np.int32(128) * sum_ints(total))
