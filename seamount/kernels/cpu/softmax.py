"""A softmax's weights: exponentials of numbers that are not above 0, and their rounding, in fewer instructions."""

from typing import Any

import numpy as np
from numba import types

from seamount.kernels.cpu.compiling import inlined
from seamount.kernels.cpu.instructions import Floats, Ints, address, constant, instruction, splat, write
from seamount.kernels.cpu.rowwise import LOG2_E, LOWEST, mantissa
from seamount.kernels.cpu.vector import add, floats, larger, multiply, subtract

# Added to a number below 2^22, it leaves the nearest whole one, ties to even, in the lowest bits.
_ROUNDING = np.float32(1.5 * 2**23)


@instruction(Floats, Floats)
def _power_of_lowest_bits(builder: Any, value: Any) -> Any:
    """2 to what the lowest bits of a float hold, an integer from -126 to 127."""
    bits = builder.shl(builder.bitcast(value, Ints.ir_type), constant(Ints.ir_type, 23))
    return builder.bitcast(builder.add(bits, constant(Ints.ir_type, 127 << 23)), Floats.ir_type)


@instruction(Floats, Floats, Floats, types.float32)
def _zero_below(builder: Any, value: Any, tested: Any, bound: Any) -> Any:
    """`value`, and 0 where `tested < bound`."""
    is_less = builder.fcmp_ordered("<", tested, splat(builder, bound, Floats.ir_type))
    return builder.select(is_less, constant(Floats.ir_type, 0.0), value)


@inlined
def falling_exp(value):
    """Equals rowwise.exp, of numbers that are not above 0."""
    bounded = larger(floats(LOWEST), value)
    shifted = add(multiply(bounded, floats(LOG2_E)), floats(_ROUNDING))
    whole = subtract(shifted, floats(_ROUNDING))
    return _zero_below(multiply(mantissa(bounded, whole), _power_of_lowest_bits(shifted)), value, LOWEST)


@instruction(types.void, address, Floats, Floats)
def store_weights(builder: Any, place: Any, even: Any, odd: Any) -> None:
    """32 bfloat16: equals vector.store_bfloat16_pairs, of numbers from 0 to 1; some NaN become zero."""
    parts = []
    for value in (even, odd):
        bits = builder.bitcast(value, Ints.ir_type)
        tie = builder.and_(builder.lshr(bits, constant(Ints.ir_type, 16)), constant(Ints.ir_type, 1))
        parts.append(builder.add(builder.add(bits, constant(Ints.ir_type, 0x7FFF)), tie))
    lower = builder.lshr(parts[0], constant(Ints.ir_type, 16))
    write(builder, place, builder.or_(lower, builder.and_(parts[1], constant(Ints.ir_type, -65536))))
