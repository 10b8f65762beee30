"""The bfloat16 tile product by vectors, for processors without tiles: the same sums in the same order.

Several rows of the left side share each pair of the right side; a row's two sums stay in registers.
Source: Intel's description of TDPBF16PS, and kernel tests on the instruction itself.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from seamount.kernels.cpu.compiling import inner_for
from seamount.kernels.cpu.instructions import I16, I32, I64, Floats, Ints, address, constant, read, splat, write
from seamount.kernels.cpu.target import TARGET
from seamount.kernels.cpu.vector import apart, emit_fma

# Rows of the left side whose sums have room in registers, and half as many for what remains.
_MANY, _SOME = (8, 4) if TARGET.has_avx512 else (2, 1)
_Pair = tuple[ir.Value, ir.Value]


def _widened(builder: ir.IRBuilder, pairs: ir.Value) -> _Pair:
    """The lower and the upper bfloat16 of each 32 bits."""
    lower = builder.shl(pairs, constant(Ints.ir_type, 16))
    upper = builder.and_(pairs, constant(Ints.ir_type, -65536))
    return builder.bitcast(lower, Floats.ir_type), builder.bitcast(upper, Floats.ir_type)


def _side_by_side(builder: ir.IRBuilder, place: ir.Value, step: ir.Value) -> _Pair:
    """The right side's pair of every column, as tiles have them."""
    return _widened(builder, read(builder, place, Ints.ir_type))


def _one_below_the_other(builder: ir.IRBuilder, place: ir.Value, step: ir.Value) -> _Pair:
    """The same from two rows of sixteen columns; `step` leads to the next two."""
    below = builder.add(place, builder.ashr(step, I64(1)))
    rows = [read(builder, at, ir.VectorType(I16, 16)) for at in (place, below)]
    wide = [builder.shl(builder.zext(row, Ints.ir_type), constant(Ints.ir_type, 16)) for row in rows]
    return builder.bitcast(wide[0], Floats.ir_type), builder.bitcast(wide[1], Floats.ir_type)


def _of_rows(rows: int, right_pair: Callable[[ir.IRBuilder, ir.Value, ir.Value], _Pair]) -> Any:
    """The product of so many rows of the left side."""
    kind = types.UniTuple(Floats, 2 * rows)

    @intrinsic
    def no_sums(context):
        def generate(context, builder, signature, values):
            return context.make_tuple(builder, kind, [constant(Floats.ir_type, 0.0)] * (2 * rows))

        return kind(), generate

    @intrinsic
    def add_pair(context, sums, a, a_stride, b, b_step):
        """One more pair of each row by the pairs of all columns: fma for the even numbers, fma for the odd ones."""

        def generate(context, builder, signature, values):
            sums, place, stride, right, step = values
            right_parts, made = right_pair(builder, right, step), []
            for row in range(rows):
                at = builder.add(place, builder.mul(stride, I64(row)))
                left_parts = _widened(builder, splat(builder, read(builder, at, I32), Ints.ir_type))
                for part in (0, 1):
                    total = builder.extract_value(sums, 2 * row + part)
                    made.append(emit_fma(builder, left_parts[part], right_parts[part], total))
            return context.make_tuple(builder, kind, made)

        return kind(kind, *[address] * 4), generate

    @intrinsic
    def add_sums(context, sums, c, c_stride):
        """Even and odd together, added to what is there."""

        def generate(context, builder, signature, values):
            sums, place, stride = values
            for row in range(rows):
                at = builder.add(place, builder.mul(stride, I64(row)))
                both = builder.fadd(*(builder.extract_value(sums, 2 * row + part) for part in (0, 1)))
                write(builder, at, builder.fadd(read(builder, at, Floats.ir_type), both))
            return context.get_dummy_value()

        return types.void(kind, address, address), generate

    @inner_for(f"{rows}{right_pair.__name__}")
    def add_rows(c, c_stride, a, a_stride, b, b_step):
        apart()
        sums = no_sums()
        for pair in range(16):
            sums = add_pair(sums, a + pair * 4, a_stride, b + pair * b_step, b_step)
        add_sums(sums, c, c_stride)

    return add_rows


def _product(right_pair: Callable[[ir.IRBuilder, ir.Value, ir.Value], _Pair]) -> Any:
    many, some, one = (_of_rows(rows, right_pair) for rows in (_MANY, _SOME, 1))

    @inner_for(right_pair.__name__)
    def add_product(c, c_stride, a, a_stride, rows, b, b_step):
        """`C += A B` for some rows and 16 columns: 32 bfloat16 of each row of A, 16 pairs of each column of B.

        Each sum takes the even k by fma from zero, and so the odd k; then both are added, and to C at last. Rows behind
        the last one, up to a multiple of 16, may be read and written too. b_step: bytes from a pair of B to the next.
        """
        apart()
        row = 0
        while row < rows:
            out, left = c + row * c_stride, a + row * a_stride
            if rows - row > _SOME:
                many(out, c_stride, left, a_stride, b, b_step)
                row += _MANY
            elif rows - row > 1:
                some(out, c_stride, left, a_stride, b, b_step)
                row += _SOME
            else:
                one(out, c_stride, left, a_stride, b, b_step)
                row += 1

    return add_product


add_product = _product(_side_by_side)
add_product_of_rows = _product(_one_below_the_other)  # B as its rows are, a pair is two of them
