"""Vector instructions as functions that numba compiles: what the CPU kernels are written in.

Three types hold 64 bytes each: `Bytes` (64 x 8 bits), `Ints` (16 x int32) and `Floats` (16 x float32). They are
virtual: LLVM splits them into whatever the processor has, and the order of every sum stays that of sixteen lanes, so
that every processor gives the same bits. An address is an int64.

Only `shuffle16`, `scaled_fast` and `dot4` name a processor's instructions; all else is LLVM's own vector arithmetic.
"""

# numba looks these functions up while compiling; their bodies build LLVM instructions and never run by themselves.
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from seamount.kernels.cpu.instructions import (
    F32,
    I8,
    I16,
    I32,
    I64,
    Bytes,
    Floats,
    Ints,
    address,
    at,
    call,
    constant,
    instruction,
    pick,
    read,
    splat,
    unseen,
    write,
)
from seamount.kernels.cpu.target import TARGET

# Memory


@instruction(Bytes, address)
def load_bytes(builder: Any, place: Any) -> Any:
    """64 bytes."""
    return read(builder, place, Bytes.ir_type)


@instruction(Ints, address)
def load_ints(builder: Any, place: Any) -> Any:
    """16 int32."""
    return read(builder, place, Ints.ir_type)


@instruction(Floats, address)
def load_floats(builder: Any, place: Any) -> Any:
    """16 float32."""
    return read(builder, place, Floats.ir_type)


@instruction(types.void, address, Bytes)
def store_bytes(builder: Any, place: Any, value: Any) -> None:
    """64 bytes."""
    write(builder, place, value)


@instruction(types.void, address, Ints)
def store_ints(builder: Any, place: Any, value: Any) -> None:
    """16 int32."""
    write(builder, place, value)


@instruction(types.void, address, Floats)
def store_floats(builder: Any, place: Any, value: Any) -> None:
    """16 float32."""
    write(builder, place, value)


@instruction(types.void, address, Ints)
def store_low_bytes(builder: Any, place: Any, value: Any) -> None:
    """The lowest byte of each of 16 int32: 16 bytes."""
    write(builder, place, builder.trunc(value, ir.VectorType(I8, 16)))


@instruction(Bytes, address)
def broadcast4(builder: Any, place: Any) -> Any:
    """Four bytes, sixteen times."""
    return emit_broadcast4(builder, place)


def emit_broadcast4(builder: ir.IRBuilder, place: ir.Value) -> ir.Value:
    """Build `broadcast4`."""
    return builder.bitcast(splat(builder, read(builder, place, I32), Ints.ir_type), Bytes.ir_type)


@instruction(types.int32, address)
def read_int32(builder: Any, place: Any) -> Any:
    """One int32."""
    return read(builder, place, I32)


@instruction(types.int16, address)
def read_half(builder: Any, place: Any) -> Any:
    """Two bytes."""
    return read(builder, place, I16)


@instruction(types.void, address, types.int16)
def write_half(builder: Any, place: Any, value: Any) -> None:
    """Two bytes."""
    write(builder, place, value)


@instruction(types.int64, address)
def read_int64(builder: Any, place: Any) -> Any:
    """One int64."""
    return read(builder, place, I64)


@instruction(types.float32, address)
def read_float(builder: Any, place: Any) -> Any:
    """One float32."""
    return read(builder, place, F32)


@instruction(types.float32, types.int64)
def bits_to_float(builder: Any, bits: Any) -> Any:
    """The float32 whose bits are the lower 32."""
    return builder.bitcast(builder.trunc(bits, I32), F32)


@instruction(types.void, address, types.int32)
def write_int32(builder: Any, place: Any, value: Any) -> None:
    """One int32."""
    write(builder, place, value)


@instruction(types.void, address, types.int64)
def write_int64(builder: Any, place: Any, value: Any) -> None:
    """One int64."""
    write(builder, place, value)


@instruction(types.void, address, types.float32)
def write_float(builder: Any, place: Any, value: Any) -> None:
    """One float32."""
    write(builder, place, value)


# Zen 4, which has no tiles, does not meet many requests for the nearest cache at once (docs/log.md). Others: not tried.
_NEAR, _FAR = 3 if TARGET.has_amx else 2, 2


@instruction(types.void, address)
def prefetch(builder: Any, place: Any) -> None:
    """Ask for the cache line at an address; never faults."""
    _emit_prefetch(builder, place, _NEAR)


@instruction(types.void, address)
def prefetch_far(builder: Any, place: Any) -> None:
    """Ask for the cache line at an address, no closer than the second-level cache; never faults."""
    _emit_prefetch(builder, place, _FAR)


def _emit_prefetch(builder: ir.IRBuilder, place: ir.Value, locality: int) -> None:
    call(builder, "llvm.prefetch.p0", ir.VoidType(), at(builder, place, I8), I32(0), I32(locality), I32(1))


# Integers


@instruction(Ints)
def zero_ints(builder: Any) -> Any:
    """Sixteen zeros."""
    return constant(Ints.ir_type, 0)


@instruction(Ints, types.int32)
def ints(builder: Any, value: Any) -> Any:
    """Sixteen times the same."""
    return splat(builder, value, Ints.ir_type)


@instruction(Ints, Ints, Ints)
def add_ints(builder: Any, left: Any, right: Any) -> Any:
    """Lane by lane."""
    return builder.add(left, right)


@instruction(Bytes, Bytes)
def low_nibbles(builder: Any, value: Any) -> Any:
    """The lower half of every byte."""
    return builder.and_(value, constant(Bytes.ir_type, 15))


@instruction(Bytes, Bytes)
def high_nibbles(builder: Any, value: Any) -> Any:
    """The upper half of every byte."""
    return builder.lshr(value, constant(Bytes.ir_type, 4))


def _halves(builder: ir.IRBuilder, value: ir.Value) -> tuple[ir.Value, ir.Value]:
    half = value.type.count // 2
    return pick(builder, value, list(range(half))), pick(builder, value, list(range(half, 2 * half)))


def _joined(builder: ir.IRBuilder, low: ir.Value, high: ir.Value) -> ir.Value:
    lanes = ir.Constant(ir.VectorType(I32, 2 * low.type.count), list(range(2 * low.type.count)))
    return builder.shuffle_vector(low, high, lanes)


def _by_halves(builder: ir.IRBuilder, emit: Callable[..., Any], *values: ir.Value) -> ir.Value:
    low, high = zip(*(_halves(builder, value) for value in values), strict=True)
    return _joined(builder, emit(*low), emit(*high))


@instruction(Bytes, Bytes, Bytes)
def shuffle16(builder: Any, table: Any, index: Any) -> Any:
    """In each lane of 16 bytes, `table[index]`; index 0 to 15."""
    if TARGET.has_avx512:
        return call(builder, "llvm.x86.avx512.pshuf.b.512", Bytes.ir_type, table, index)
    if TARGET.has_avx2:
        half = ir.VectorType(I8, 32)
        return _by_halves(builder, lambda *v: call(builder, "llvm.x86.avx2.pshuf.b", half, *v), table, index)
    result = constant(Bytes.ir_type, 0)
    for entry in range(16):
        spread = pick(builder, table, [lane * 16 + entry for lane in range(4) for _ in range(16)])
        chosen = builder.icmp_unsigned("==", index, constant(Bytes.ir_type, entry))
        result = builder.select(chosen, spread, result)
    return result


def scaled(builder: ir.IRBuilder, codebook: tuple[int, ...], place: ir.Value) -> ir.Value:
    """Four tables of 16 bytes: table l is `((codebook * scale[l] + 64) >> 7) + 128`, scale int8 at `place + l`."""
    four = ir.VectorType(I8, 4)
    scale = pick(builder, read(builder, place, four), [lane for lane in range(4) for _ in range(16)])
    wide = ir.VectorType(I16, 64)
    product = builder.mul(builder.sext(scale, wide), ir.Constant(wide, list(codebook) * 4))
    rounded = builder.ashr(builder.add(product, constant(wide, 64)), constant(wide, 7))
    return builder.xor(builder.trunc(rounded, Bytes.ir_type), constant(Bytes.ir_type, -128))


def scaled_fast(builder: ir.IRBuilder, codebook: tuple[int, ...], place: ir.Value) -> ir.Value:
    """`scaled` in five instructions of AVX-512: multiply-round-shift on 16 bits, then pack with saturation."""
    words = ir.VectorType(I16, 32)
    spread = builder.bitcast(splat(builder, read(builder, place, I32), Ints.ir_type), Bytes.ir_type)
    # Lane l gets its scale in the upper byte of every 16 bits; index 128 gives a zero byte. If LLVM saw that all lanes
    # are the same, it would look bytes up in them and a zero at once, by an instruction three times as dear.
    spread = unseen(builder, spread, "v")
    index = ir.Constant(Bytes.ir_type, [b for lane in range(4) for _ in range(8) for b in (-128, lane)])
    scale = builder.bitcast(call(builder, "llvm.x86.avx512.pshuf.b.512", Bytes.ir_type, spread, index), words)
    parts = [
        call(builder, "llvm.x86.avx512.pmul.hr.sw.512", words, scale, ir.Constant(words, list(codebook[part]) * 4))
        for part in (slice(0, 8), slice(8, 16))
    ]
    packed = call(builder, "llvm.x86.avx512.packsswb.512", Bytes.ir_type, *parts)
    return builder.xor(packed, constant(Bytes.ir_type, -128))


@instruction(Ints, Ints, Bytes, Bytes)
def dot4(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """`total[i] + sum of unsigned[4i + j] * signed[4i + j], j = 0..3`; exact, wraps at 32 bits."""
    return emit_dot4(builder, total, unsigned, signed)


def emit_dot4(builder: ir.IRBuilder, total: ir.Value, unsigned: ir.Value, signed: ir.Value) -> ir.Value:
    """Build `dot4`."""
    if TARGET.has_vnni512:
        as_ints = [builder.bitcast(value, Ints.ir_type) for value in (unsigned, signed)]
        return call(builder, "llvm.x86.avx512.vpdpbusd.512", Ints.ir_type, total, *as_ints)
    if TARGET.has_vnni256:
        half = ir.VectorType(I32, 8)
        as_ints = [builder.bitcast(value, Ints.ir_type) for value in (unsigned, signed)]
        name = "llvm.x86.avx512.vpdpbusd.256"
        return _by_halves(builder, lambda *v: call(builder, name, half, *v), total, *as_ints)
    # The u8 x s8 multiply-add of AVX2 saturates at 16 bits, so the products are taken in 32.
    wide = ir.VectorType(I32, 64)
    product = builder.mul(builder.zext(unsigned, wide), builder.sext(signed, wide))
    for part in range(4):
        total = builder.add(total, pick(builder, product, list(range(part, 64, 4))))
    return total


# Floats


@instruction(Floats, types.float32)
def floats(builder: Any, value: Any) -> Any:
    """Sixteen times the same."""
    return splat(builder, value, Floats.ir_type)


@instruction(Floats, Ints)
def to_floats(builder: Any, value: Any) -> Any:
    """Rounded to the nearest float32."""
    return builder.sitofp(value, Floats.ir_type)


@instruction(Ints, Floats)
def to_ints(builder: Any, value: Any) -> Any:
    """Rounded to the nearest integer, ties to even; the value must fit."""
    return builder.fptosi(call(builder, "llvm.rint.v16f32", Floats.ir_type, value), Ints.ir_type)


@instruction(Floats, Floats, Floats, Floats)
def fma(builder: Any, left: Any, right: Any, plus: Any) -> Any:
    """`left * right + plus`, rounded once."""
    return emit_fma(builder, left, right, plus)


def emit_fma(builder: ir.IRBuilder, left: ir.Value, right: ir.Value, plus: ir.Value) -> ir.Value:
    """Build `fma`."""
    return call(builder, "llvm.fma.v16f32", Floats.ir_type, left, right, plus)


@instruction(Floats, Floats, Floats)
def add(builder: Any, left: Any, right: Any) -> Any:
    """Lane by lane."""
    return builder.fadd(left, right)


@instruction(Floats, Floats, Floats)
def subtract(builder: Any, left: Any, right: Any) -> Any:
    """Lane by lane."""
    return builder.fsub(left, right)


@instruction(Floats, Floats, Floats)
def multiply(builder: Any, left: Any, right: Any) -> Any:
    """Lane by lane."""
    return builder.fmul(left, right)


@instruction(Floats, Floats, Floats)
def divide(builder: Any, left: Any, right: Any) -> Any:
    """Lane by lane."""
    return builder.fdiv(left, right)


@instruction(Floats, Floats, Floats)
def larger(builder: Any, left: Any, right: Any) -> Any:
    """Lane by lane; the right one where they cannot be compared."""
    return builder.select(builder.fcmp_ordered(">", left, right), left, right)


@instruction(Floats, Floats, Floats)
def smaller(builder: Any, left: Any, right: Any) -> Any:
    """Lane by lane; the right one where they cannot be compared."""
    return builder.select(builder.fcmp_ordered("<", left, right), left, right)


@instruction(Floats, Floats)
def magnitude(builder: Any, value: Any) -> Any:
    """Without the sign."""
    return call(builder, "llvm.fabs.v16f32", Floats.ir_type, value)


@instruction(Floats, Floats, types.int64, types.float32)
def keep_lanes(builder: Any, value: Any, count: Any, other: Any) -> Any:
    """The first `count` lanes, and `other` in the rest."""
    wide = ir.VectorType(I64, 16)
    lanes = ir.Constant(wide, list(range(16)))
    return builder.select(
        builder.icmp_signed("<", lanes, splat(builder, count, wide)), value, splat(builder, other, Floats.ir_type)
    )


@instruction(Floats, Floats, Floats, types.float32)
def keep_where_above(builder: Any, value: Any, tested: Any, bound: Any) -> Any:
    """`value` where `tested >= bound`, 0 where it is less, and `tested` itself where it is not a number."""
    is_less = builder.fcmp_ordered("<", tested, splat(builder, bound, Floats.ir_type))
    kept = builder.select(is_less, constant(Floats.ir_type, 0.0), value)
    return builder.select(builder.fcmp_unordered("uno", tested, tested), tested, kept)


@instruction(Floats, Floats, Ints, types.int32)
def keep_below(builder: Any, value: Any, limits: Any, index: Any) -> Any:
    """`value` in the lanes whose limit is above `index`, minus infinity in the others."""
    is_kept = builder.icmp_signed(">", limits, splat(builder, index, Ints.ir_type))
    return builder.select(is_kept, value, constant(Floats.ir_type, float("-inf")))


def _tree(builder: ir.IRBuilder, value: ir.Value, emit: Callable[..., Any]) -> ir.Value:
    while value.type.count > 1:
        value = emit(*_halves(builder, value))
    return builder.extract_element(value, I32(0))


@instruction(types.float32, Floats)
def sum_lanes(builder: Any, value: Any) -> Any:
    """The sum: lane i with lane i + 8, then i + 4, i + 2, i + 1."""
    return _tree(builder, value, builder.fadd)


@instruction(types.float32, Floats)
def max_lanes(builder: Any, value: Any) -> Any:
    """The largest lane."""
    return _tree(builder, value, lambda low, high: builder.select(builder.fcmp_ordered(">", low, high), low, high))


@instruction(types.int32, Ints)
def sum_ints(builder: Any, value: Any) -> Any:
    """The sum of all lanes."""
    return _tree(builder, value, builder.add)


@instruction(Floats, Ints)
def power_of_two(builder: Any, exponent: Any) -> Any:
    """2 to an integer from -126 to 127."""
    bits = builder.shl(builder.add(exponent, constant(Ints.ir_type, 127)), constant(Ints.ir_type, 23))
    return builder.bitcast(bits, Floats.ir_type)


# bfloat16


@instruction(Floats, address)
def load_bfloat16(builder: Any, place: Any) -> Any:
    """16 bfloat16, widened."""
    half = read(builder, place, ir.VectorType(I16, 16))
    wide = builder.shl(builder.zext(half, Ints.ir_type), constant(Ints.ir_type, 16))
    return builder.bitcast(wide, Floats.ir_type)


@instruction(types.void, address, Floats)
def store_bfloat16(builder: Any, place: Any, value: Any) -> None:
    """16 float32 rounded to the nearest bfloat16, ties to even; a NaN stays one."""
    write(builder, place, builder.trunc(_rounded_to_bfloat16(builder, value), ir.VectorType(I16, 16)))


def _rounded_to_bfloat16(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    bits = builder.bitcast(value, Ints.ir_type)
    upper = builder.lshr(bits, constant(Ints.ir_type, 16))
    odd = builder.and_(upper, constant(Ints.ir_type, 1))
    rounded = builder.lshr(
        builder.add(bits, builder.add(odd, constant(Ints.ir_type, 0x7FFF))), constant(Ints.ir_type, 16)
    )
    is_nan = builder.fcmp_unordered("uno", value, value)
    return builder.select(is_nan, builder.or_(upper, constant(Ints.ir_type, 0x40)), rounded)


@instruction(Floats, Ints)
def pair_even(builder: Any, value: Any) -> Any:
    """The lower of two bfloat16 in each 32 bits, widened."""
    return builder.bitcast(builder.shl(value, constant(Ints.ir_type, 16)), Floats.ir_type)


@instruction(Floats, Ints)
def pair_odd(builder: Any, value: Any) -> Any:
    """The upper of two bfloat16 in each 32 bits, widened."""
    return builder.bitcast(builder.and_(value, constant(Ints.ir_type, -65536)), Floats.ir_type)


@instruction(types.int16, types.float32)
def half_bits(builder: Any, value: Any) -> Any:
    """One float32 as the nearest bfloat16, ties to even."""
    wide = _rounded_to_bfloat16(builder, splat(builder, value, Floats.ir_type))
    return builder.trunc(builder.extract_element(wide, I32(0)), I16)


@instruction(types.void, address, Floats, Floats)
def store_bfloat16_pairs(builder: Any, place: Any, even: Any, odd: Any) -> None:
    """32 bfloat16: lane i of `even`, lane i of `odd`, by turns."""
    halves = [builder.trunc(_rounded_to_bfloat16(builder, value), ir.VectorType(I16, 16)) for value in (even, odd)]
    lanes = ir.Constant(ir.VectorType(I32, 32), [lane + 16 * part for lane in range(16) for part in (0, 1)])
    write(builder, place, builder.shuffle_vector(halves[0], halves[1], lanes))


@instruction(types.void, address, address, address)
def interleave_bfloat16(builder: Any, even: Any, odd: Any, out: Any) -> None:
    """16 bfloat16 of each of two rows, by turns: 64 bytes."""
    rows = [read(builder, place, ir.VectorType(I16, 16)) for place in (even, odd)]
    lanes = ir.Constant(ir.VectorType(I32, 32), [lane + 16 * part for lane in range(16) for part in (0, 1)])
    write(builder, out, builder.shuffle_vector(rows[0], rows[1], lanes))


@instruction(types.void, address, types.int64, address, types.int64)
def transpose16(builder: Any, source: Any, source_stride: Any, out: Any, out_stride: Any) -> None:
    """16 x 16 numbers of 32 bits, rows to columns; strides in bytes."""
    rows = [read(builder, builder.add(source, builder.mul(source_stride, I64(row))), Ints.ir_type) for row in range(16)]
    for distance in (8, 4, 2, 1):
        # Exchange the off-diagonal blocks of `distance` x `distance` between each pair of rows.
        low = [lane if not lane & distance else lane - distance + 16 for lane in range(16)]
        high = [lane + distance if not lane & distance else lane + 16 for lane in range(16)]
        masks = [ir.Constant(ir.VectorType(I32, 16), lanes) for lanes in (low, high)]
        for row in range(16):
            if not row & distance:
                pair = rows[row], rows[row + distance]
                rows[row], rows[row + distance] = (builder.shuffle_vector(*pair, mask) for mask in masks)
    for row in range(16):
        write(builder, builder.add(out, builder.mul(out_stride, I64(row))), rows[row])


# The compiler


@instruction(types.void)
def apart(builder: Any) -> None:
    """Keep the calling function out of its callers: without this, LLVM copies everything everywhere, for minutes."""
    builder.function.attributes.add("noinline")
