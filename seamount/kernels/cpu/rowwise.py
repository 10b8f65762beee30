"""What happens to one token's row at a time: norm, SiLU, exponentials, rotation.

Sums run in 64 virtual lanes: four vectors of sixteen, added as (0 + 1) + (2 + 3), then by halves.
"""

import numpy as np

from seamount.kernels.cpu.compiling import inlined, inner
from seamount.kernels.cpu.vector import (
    add,
    apart,
    divide,
    floats,
    fma,
    keep_lanes,
    keep_where_above,
    larger,
    load_bfloat16,
    load_floats,
    multiply,
    power_of_two,
    read_float,
    smaller,
    store_floats,
    subtract,
    sum_lanes,
    to_floats,
    to_ints,
    write_float,
)

_ONE = np.float32(1.0)
LOG2_E = np.float32(1.4426950408889634)
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(-2.12194440e-4)
LOWEST, _HIGHEST = np.float32(-87.0), np.float32(88.0)
_C2, _C3, _C4, _C5, _C6 = (np.float32(c) for c in (0.5, 1 / 6, 1 / 24, 1 / 120, 1 / 720))


@inlined
def mantissa(value, whole):
    """`exp(value)` without its factor `2 ** whole`, where `whole` is the integer nearest to `value / ln 2`."""
    rest = fma(whole, floats(-_LN2_HIGH), value)
    rest = fma(whole, floats(-_LN2_LOW), rest)
    series = fma(floats(_C6), rest, floats(_C5))
    series = fma(series, rest, floats(_C4))
    series = fma(series, rest, floats(_C3))
    series = fma(series, rest, floats(_C2))
    series = fma(series, rest, floats(_ONE))
    return fma(series, rest, floats(_ONE))


@inlined
def exp(value):
    """e to the power of sixteen floats; 0 below -87, cut off at 88; exp(0) is exactly 1.

    Cost: relative error below 3e-7: range reduction by ln 2 in two parts, then the series to the sixth power.
    """
    bounded = smaller(larger(value, floats(LOWEST)), floats(_HIGHEST))
    turns = to_ints(multiply(bounded, floats(LOG2_E)))
    return keep_where_above(multiply(mantissa(bounded, to_floats(turns)), power_of_two(turns)), value, LOWEST)


@inlined
def silu(value):
    """`x / (1 + exp(-x))`."""
    return divide(value, add(floats(_ONE), exp(subtract(floats(np.float32(0)), value))))


@inner
def inverse_rms(x, count, eps):
    """`1 / sqrt(mean of x^2 + eps)` of a row of float32."""
    apart()
    a = floats(np.float32(0))
    b = a
    c = a
    d = a
    whole = count // 64 * 64
    for i in range(0, whole, 64):
        v = load_floats(x + i * 4)
        a = fma(v, v, a)
        v = load_floats(x + i * 4 + 64)
        b = fma(v, v, b)
        v = load_floats(x + i * 4 + 128)
        c = fma(v, v, c)
        v = load_floats(x + i * 4 + 192)
        d = fma(v, v, d)
    total = sum_lanes(add(add(a, b), add(c, d)))
    for i in range(whole, count):
        v = read_float(x + i * 4)
        total += v * v
    return _ONE / np.sqrt(total / np.float32(count) + eps)


@inner
def norm(x, weight, count, eps, out):
    """`x / sqrt(mean(x^2) + eps) * weight`, all float32; a row's padding up to 16 may be written."""
    apart()
    inverse = floats(inverse_rms(x, count, eps))
    for i in range(0, count, 16):
        store_floats(out + i * 4, multiply(multiply(load_floats(x + i * 4), inverse), load_floats(weight + i * 4)))


@inner
def rotate(x, out, dim, cos, sin, is_interleaved):
    """Turn the pairs of `dim` channels: see kernels.reference.rotate. `out` may be `x`."""
    apart()
    half = dim // 2
    whole = 0 if is_interleaved else half // 16 * 16
    for i in range(0, whole, 16):
        a, b = load_floats(x + i * 4), load_floats(x + (i + half) * 4)
        c, s = load_floats(cos + i * 4), load_floats(sin + i * 4)
        store_floats(out + i * 4, subtract(multiply(a, c), multiply(b, s)))
        store_floats(out + (i + half) * 4, add(multiply(a, s), multiply(b, c)))
    for i in range(whole, half):
        first = i
        second = i + half
        if is_interleaved:
            first = 2 * i
            second = 2 * i + 1
        a = read_float(x + first * 4)
        b = read_float(x + second * 4)
        c = read_float(cos + i * 4)
        s = read_float(sin + i * 4)
        write_float(out + first * 4, a * c - b * s)
        write_float(out + second * 4, a * s + b * c)


@inner
def router_scores(x, weight, stride, count, out):
    """`router_score` of four experts whose rows are `stride` bytes apart; count is a multiple of 32."""
    apart()
    a = floats(np.float32(0))
    b, c, d, e, f, g, h = a, a, a, a, a, a, a
    for i in range(0, count, 32):
        low, high, place = load_floats(x + i * 4), load_floats(x + i * 4 + 64), weight + i * 2
        a, b = fma(low, load_bfloat16(place), a), fma(high, load_bfloat16(place + 32), b)
        place += stride
        c, d = fma(low, load_bfloat16(place), c), fma(high, load_bfloat16(place + 32), d)
        place += stride
        e, f = fma(low, load_bfloat16(place), e), fma(high, load_bfloat16(place + 32), f)
        place += stride
        g, h = fma(low, load_bfloat16(place), g), fma(high, load_bfloat16(place + 32), h)
    write_float(out, sum_lanes(add(a, b)))
    write_float(out + 4, sum_lanes(add(c, d)))
    write_float(out + 8, sum_lanes(add(e, f)))
    write_float(out + 12, sum_lanes(add(g, h)))


@inner
def router_score(x, weight, count):
    """The product of a row of float32 with one expert's row of bfloat16, in sixteen lanes by two."""
    apart()
    a = floats(np.float32(0))
    b = a
    whole = count // 32 * 32
    for i in range(0, whole, 32):
        a = fma(load_floats(x + i * 4), load_bfloat16(weight + i * 2), a)
        b = fma(load_floats(x + i * 4 + 64), load_bfloat16(weight + i * 2 + 32), b)
    rest = count - whole
    if rest > 0:
        # A last part shorter than 32 reads neighbours, which the lanes beyond `rest` drop.
        nothing = np.float32(0)
        for i in range(whole, count, 16):
            v = keep_lanes(load_floats(x + i * 4), count - i, nothing)
            w = keep_lanes(load_bfloat16(weight + i * 2), count - i, nothing)
            a = fma(v, w, a)
    return sum_lanes(add(a, b))
