"""Products of float32 rows: 16 lanes along the inputs, one chain of fused multiply-adds a lane, then a tree.

Lane l sums the inputs l, l + 16, l + 32, ... in that order; lane i is then added to lane i + 8, i + 4, i + 2, i + 1. So
an output depends on its own token and its own weight row alone, however many of either share a pass.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils

from seamount.kernels.cpu.instructions import I32, I64, Floats, address, call, constant, instruction, read, write
from seamount.kernels.cpu.partial import read_some
from seamount.kernels.cpu.target import TARGET

UNIT = 32  # output rows that are worked out together
# Tokens and rows of the block that stays in registers.
_TOKENS, _ROWS = (4, 4) if TARGET.has_avx512 else (2, 2)
_WIDE = 8


def lane_sums(builder: ir.IRBuilder, vectors: list[ir.Value]) -> ir.Value:
    """The sums of vectors of 16 lanes, side by side: each as `sum_lanes` adds it, all together."""
    group = 16
    while group > 1:
        merged = []
        for first in range(0, len(vectors), 2):
            pair = vectors[first : first + 2]
            lanes = [lane for lane in range(sum(vector.type.count for vector in pair)) if lane % group < group // 2]
            halves = []
            for shift in (0, group // 2):
                index = ir.Constant(ir.VectorType(I32, len(lanes)), [lane + shift for lane in lanes])
                halves.append(builder.shuffle_vector(pair[0], pair[-1], index))
            merged.append(builder.fadd(*halves))
        vectors, group = merged, group // 2
    return vectors[0]


def _block(tokens: int, rows: int) -> Callable[..., Any]:
    """`emit` of an instruction that multiplies `tokens` rows of x by `rows` rows of a weight."""

    def emit(
        builder: Any, x: Any, x_stride: Any, weight: Any, stride: Any, count: Any, out: Any, out_stride: Any
    ) -> None:
        x_rows = [builder.add(x, builder.mul(x_stride, I64(token))) for token in range(tokens)]
        weight_rows = [builder.add(weight, builder.mul(stride, I64(row))) for row in range(rows)]
        totals = [cgutils.alloca_once_value(builder, constant(Floats.ir_type, 0)) for _ in range(tokens * rows)]
        for total in totals:
            builder.store(constant(Floats.ir_type, 0), total)

        def step(load: Callable[[ir.Value], ir.Value]) -> None:
            values = [load(row) for row in x_rows]
            for row in range(rows):
                weights = load(weight_rows[row])
                for token in range(tokens):
                    total = totals[token * rows + row]
                    fused = call(
                        builder, "llvm.fma.v16f32", Floats.ir_type, values[token], weights, builder.load(total)
                    )
                    builder.store(fused, total)

        whole = builder.sdiv(count, I64(16))
        with cgutils.for_range(builder, whole, intp=I64) as loop:
            offset = builder.mul(loop.index, I64(64))
            step(lambda row: read(builder, builder.add(row, offset), Floats.ir_type))
        left = builder.srem(count, I64(16))
        with builder.if_then(builder.icmp_signed(">", left, I64(0))):
            offset = builder.mul(whole, I64(64))
            step(lambda row: read_some(builder, builder.add(row, offset), left, Floats.ir_type))
        sums = lane_sums(builder, [builder.load(total) for total in totals])
        for token in range(tokens):
            index = ir.Constant(ir.VectorType(I32, rows), list(range(token * rows, token * rows + rows)))
            part = builder.shuffle_vector(sums, sums, index) if rows > 1 else builder.extract_element(sums, I32(token))
            write(builder, builder.add(out, builder.mul(out_stride, I64(token))), part)

    return emit


_SIGNATURE = (types.void, *[address] * 7)
_block_of_many = instruction(*_SIGNATURE)(_block(_TOKENS, _ROWS))
_block_of_rows = instruction(*_SIGNATURE)(_block(1, _WIDE))
_block_of_one = instruction(*_SIGNATURE)(_block(1, 1))


@njit
def products(x, x_stride, count, weight, stride, rows, K, out, out_stride):
    """`rows` outputs of each of `count` tokens: float32 at `out`, token after token.

    Nothing is prefetched: eight rows are read side by side, and the processor follows them better by itself.
    """
    many = 0
    if rows >= _ROWS:
        many = count // _TOKENS * _TOKENS
    for token in range(0, many, _TOKENS):
        for row in range(0, rows, _ROWS):
            # The last block overlaps the one before it and writes the same bits again.
            first = min(row, rows - _ROWS)
            place = out + token * out_stride + first * 4
            _block_of_many(x + token * x_stride, x_stride, weight + first * stride, stride, K, place, out_stride)
    for token in range(many, count):
        line = x + token * x_stride
        if rows >= _WIDE:
            for row in range(0, rows, _WIDE):
                first = min(row, rows - _WIDE)
                place = weight + first * stride
                _block_of_rows(line, 0, place, stride, K, out + token * out_stride + first * 4, 0)
        else:
            for row in range(rows):
                place = out + token * out_stride + row * 4
                _block_of_one(line, 0, weight + row * stride, stride, K, place, 0)
