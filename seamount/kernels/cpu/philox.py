"""Random numbers that are a function of a counter and a key: Philox4x32-10, sixteen counters at once.

Source: Salmon and others, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Equals: reference.sampling.philox.
"""

from typing import Any

from llvmlite import ir
from numba import types

from seamount.kernels.cpu.instructions import I64, Ints, address, constant, instruction, splat, write

_MULTIPLIERS, _KEY_STEPS, _TURNS = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85), 10
# A word stands in the lower half of 64 bits, where its products fit. What the upper half holds is never read.
_WIDE = ir.VectorType(I64, 8)
_LOW = constant(_WIDE, 2**32 - 1)


def _high(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    return builder.lshr(value, constant(_WIDE, 32))


def _words(builder: ir.IRBuilder, counter: list[ir.Value], key: list[ir.Value]) -> list[ir.Value]:
    """The four words of eight counters."""
    a, b, c, d = counter
    for turn in range(_TURNS):
        keys = [
            splat(builder, builder.add(half, I64(turn * step)), _WIDE)
            for half, step in zip(key, _KEY_STEPS, strict=True)
        ]
        from_a, from_c = (
            builder.mul(builder.and_(word, _LOW), constant(_WIDE, multiplier))
            for word, multiplier in zip((a, c), _MULTIPLIERS, strict=True)
        )
        a, b = builder.xor(builder.xor(_high(builder, from_c), b), keys[0]), from_c
        c, d = builder.xor(builder.xor(_high(builder, from_a), d), keys[1]), from_a
    return [a, b, c, d]


@instruction(types.void, address, types.int64, types.int64, types.int64, types.int64, types.int64)
def store_random(builder: Any, out: Any, first: Any, second: Any, third: Any, fourth: Any, key: Any) -> None:
    """4 x 16 words of 32 bits: word j of the counter (first + lane, second, third, fourth), for each j its lanes."""
    rest = [splat(builder, word, _WIDE) for word in (second, third, fourth)]
    halves = [key, builder.lshr(key, I64(32))]
    even, odd = (
        _words(
            builder,
            [builder.add(splat(builder, first, _WIDE), ir.Constant(_WIDE, list(range(start, 16, 2)))), *rest],
            halves,
        )
        for start in (0, 1)
    )
    for word in range(4):
        upper = builder.shl(odd[word], constant(_WIDE, 32))
        both = builder.or_(builder.and_(even[word], _LOW), upper)
        write(builder, builder.add(out, I64(64 * word)), builder.bitcast(both, Ints.ir_type))


@instruction(Ints, Ints)
def upper_24_bits(builder: Any, value: Any) -> Any:
    """Of each 32, as integers from 0 to 2^24 - 1."""
    return builder.lshr(value, constant(Ints.ir_type, 8))
