"""AMX: eight tile registers of 16 rows x 64 bytes. See Intel's Architecture Instruction Set Extensions, chapter 3.

Tile numbers are constants of the instruction. Every kernel configures the tiles when it begins and releases them when
it ends, on each thread: a thread that keeps tile state costs the system at every switch.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from seamount.kernels.cpu.instructions import I8, address, at, call, instruction
from seamount.kernels.cpu.target import TARGET


@instruction(types.void, address)
def configure_tiles(builder: Any, place: Any) -> None:
    """Load the 64-byte configuration at an address (see `tile_configuration`)."""
    if TARGET.has_amx:
        call(builder, "llvm.x86.ldtilecfg", ir.VoidType(), at(builder, place, I8))


@instruction(types.void)
def release_tiles(builder: Any) -> None:
    """Give the tile state back."""
    if TARGET.has_amx:
        call(builder, "llvm.x86.tilerelease", ir.VoidType())


def _tile_call(name: str, tiles: int, operands: int) -> Any:
    """An intrinsic `name(tile, ..., address, stride)` with constant tile numbers."""

    def emit(signature: Any, numbers: tuple[int, ...]) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
            constants = [I8(number) for number in numbers]
            rest = list(values[tiles:])
            if operands:
                rest[0] = at(builder, rest[0], I8)
            call(builder, name, ir.VoidType(), *constants, *rest)
            return context.get_dummy_value()

        return signature, generate

    return emit


def _numbers(*tiles: Any) -> tuple[int, ...]:
    return tuple(tile.literal_value for tile in tiles)


_zero = _tile_call("llvm.x86.tilezero", 1, 0)
_load = _tile_call("llvm.x86.tileloadd64", 1, 2)
_store = _tile_call("llvm.x86.tilestored64", 1, 2)
_dot_int8 = _tile_call("llvm.x86.tdpbsud", 3, 0)
_dot_bfloat16 = _tile_call("llvm.x86.tdpbf16ps", 3, 0)


@intrinsic(prefer_literal=True)
def tile_zero(context: Any, tile: Any) -> Any:
    """All zeros."""
    return _zero(types.void(tile), _numbers(tile))


@intrinsic(prefer_literal=True)
def tile_load(context: Any, tile: Any, place: Any, stride: Any) -> Any:
    """16 rows of 64 bytes, `stride` bytes apart."""
    return _load(types.void(tile, types.int64, types.int64), _numbers(tile))


@intrinsic(prefer_literal=True)
def tile_store(context: Any, tile: Any, place: Any, stride: Any) -> Any:
    """16 rows of 64 bytes, `stride` bytes apart."""
    return _store(types.void(tile, types.int64, types.int64), _numbers(tile))


@intrinsic(prefer_literal=True)
def tile_dot_int8(context: Any, total: Any, signed: Any, unsigned: Any) -> Any:
    """`total[m, n] += sum over k of signed[m, k] * unsigned[k, n]`: int8 by uint8, int32 sums."""
    return _dot_int8(types.void(total, signed, unsigned), _numbers(total, signed, unsigned))


@intrinsic(prefer_literal=True)
def tile_dot_bfloat16(context: Any, total: Any, left: Any, right: Any) -> Any:
    """`total[m, n] += sum over k of left[m, k] * right[k, n]`: bfloat16, float32 sums."""
    return _dot_bfloat16(types.void(total, left, right), _numbers(total, left, right))


def tile_configuration() -> bytes:
    """All eight tiles at full size."""
    return (
        bytes([1, 0])
        + bytes(14)
        + b"".join((64).to_bytes(2, "little") for _ in range(8))
        + bytes(16)
        + bytes([16] * 8)
        + bytes(8)
    )
