"""Rows of float32 or bfloat16, read and written up to their last element and no further."""

from typing import Any

from llvmlite import ir
from numba import njit, types

from seamount.kernels.cpu.instructions import I16, I32, I64, Floats, Ints, address, at, constant, instruction
from seamount.kernels.cpu.vector import load_bfloat16, load_floats, store_bfloat16, store_floats

_HALVES = ir.VectorType(I16, 16)


def _mask(builder: ir.IRBuilder, count: ir.Value) -> ir.Value:
    wide = ir.VectorType(I64, 16)
    first = builder.insert_element(ir.Constant(wide, ir.Undefined), count, I32(0))
    spread = builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(I32, 16), [0] * 16))
    return builder.icmp_signed("<", ir.Constant(wide, list(range(16))), spread)


def _suffix(kind: ir.VectorType) -> str:
    return "v16f32" if kind is Floats.ir_type else "v16i16"


def read_some(builder: ir.IRBuilder, place: ir.Value, count: ir.Value, kind: ir.VectorType) -> ir.Value:
    """The first `count` elements, then zeros; what lies behind them is not touched."""
    name = f"llvm.masked.load.{_suffix(kind)}.p0"
    arguments = [at(builder, place, kind), I32(1), _mask(builder, count), constant(kind, 0)]
    return _call(builder, name, kind, arguments)


def _call(builder: ir.IRBuilder, name: str, returns: ir.Type, arguments: list[ir.Value]) -> ir.Value:
    function_type = ir.FunctionType(returns, [value.type for value in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, function_type, name)
    return builder.call(function, arguments)


def _write_some(builder: ir.IRBuilder, place: ir.Value, count: ir.Value, value: ir.Value) -> None:
    name = f"llvm.masked.store.{_suffix(value.type)}.p0"
    _call(builder, name, ir.VoidType(), [value, at(builder, place, value.type), I32(1), _mask(builder, count)])


def widened(builder: ir.IRBuilder, halves: ir.Value) -> ir.Value:
    """16 bfloat16 as float32."""
    wide = builder.shl(builder.zext(halves, Ints.ir_type), constant(Ints.ir_type, 16))
    return builder.bitcast(wide, Floats.ir_type)


def narrowed(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """16 float32 as bfloat16: to the nearest, ties to even; a NaN stays one."""
    bits = builder.bitcast(value, Ints.ir_type)
    upper = builder.lshr(bits, constant(Ints.ir_type, 16))
    odd = builder.and_(upper, constant(Ints.ir_type, 1))
    raised = builder.add(bits, builder.add(odd, constant(Ints.ir_type, 0x7FFF)))
    is_nan = builder.fcmp_unordered("uno", value, value)
    kept = builder.select(
        is_nan, builder.or_(upper, constant(Ints.ir_type, 0x40)), builder.lshr(raised, constant(Ints.ir_type, 16))
    )
    return builder.trunc(kept, _HALVES)


@instruction(Floats, address, types.int64)
def load_some_floats(builder: Any, place: Any, count: Any) -> Any:
    """The first `count` of 16 float32, then zeros; `count` may be 16 or more."""
    return read_some(builder, place, count, Floats.ir_type)


@instruction(Floats, address, types.int64)
def load_some_bfloat16(builder: Any, place: Any, count: Any) -> Any:
    """The first `count` of 16 bfloat16, widened, then zeros."""
    return widened(builder, read_some(builder, place, count, _HALVES))


@instruction(types.void, address, types.int64, Floats)
def store_some_floats(builder: Any, place: Any, count: Any, value: Any) -> None:
    """The first `count` of 16 float32."""
    _write_some(builder, place, count, value)


@instruction(types.void, address, types.int64, Floats)
def store_some_bfloat16(builder: Any, place: Any, count: Any, value: Any) -> None:
    """The first `count` of 16 float32, rounded to the nearest bfloat16."""
    _write_some(builder, place, count, narrowed(builder, value))


@instruction(Floats, Floats)
def rounded_to_bfloat16(builder: Any, value: Any) -> Any:
    """The nearest bfloat16, as float32."""
    return widened(builder, narrowed(builder, value))


@njit(forceinline=True)
def load_part(row, start, count, is_bfloat16):
    """Elements `start` to `start + 15` of a row of `count`, as float32, then zeros."""
    if is_bfloat16:
        if start + 16 <= count:
            return load_bfloat16(row + start * 2)
        return load_some_bfloat16(row + start * 2, count - start)
    if start + 16 <= count:
        return load_floats(row + start * 4)
    return load_some_floats(row + start * 4, count - start)


@njit(forceinline=True)
def store_part(row, start, count, is_bfloat16, value):
    """Elements `start` to `start + 15` of a row of `count`, rounded to its dtype."""
    if is_bfloat16:
        if start + 16 <= count:
            store_bfloat16(row + start * 2, value)
        else:
            store_some_bfloat16(row + start * 2, count - start, value)
    elif start + 16 <= count:
        store_floats(row + start * 4, value)
    else:
        store_some_floats(row + start * 4, count - start, value)


@njit(forceinline=True)
def rounded(value, is_bfloat16):
    """A result as the next operation reads it."""
    if is_bfloat16:
        return rounded_to_bfloat16(value)
    return value
