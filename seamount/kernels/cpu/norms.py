"""What happens to one row at a time: norms, rotation, SwiGLU, sigmoid, log-softmax; roundings as in the reference.

Rows are float32 or bfloat16; all arithmetic is float32. Sums run in 64 virtual lanes, see rowwise.py.
"""

from functools import cache

import numpy as np
import torch
from numba import njit
from torch import Tensor

from seamount.kernels.cpu.launch import all_workers, argument, launch
from seamount.kernels.cpu.partial import load_part, rounded, store_part
from seamount.kernels.cpu.rowwise import exp, inverse_rms, silu
from seamount.kernels.cpu.vector import (
    add,
    bits_to_float,
    divide,
    floats,
    half_bits,
    keep_lanes,
    larger,
    load_floats,
    load_ints,
    max_lanes,
    multiply,
    pair_even,
    pair_odd,
    read_float,
    read_half,
    store_bfloat16_pairs,
    store_floats,
    subtract,
    sum_lanes,
    write_float,
    write_half,
)

# Numbers below which another thread is not worth waking.
_ALONE = 1 << 15
_LOW = np.float32(-3.0e38)
_ZERO, _ONE = np.float32(0), np.float32(1)


@njit
def norm_row(x, weight, count, eps, out, is_bfloat16, scratch):
    """`x / sqrt(mean(x^2) + eps) * weight` of one row; the quotient is rounded before the weight."""
    wide = x
    if is_bfloat16:
        wide = scratch
        for i in range(0, count, 16):
            store_floats(scratch + i * 4, load_part(x, i, count, True))
    inverse = floats(inverse_rms(wide, count, eps))
    for i in range(0, count, 16):
        value = rounded(multiply(load_part(wide, i, count, False), inverse), is_bfloat16)
        store_part(out, i, count, is_bfloat16, multiply(value, load_part(weight, i, count, is_bfloat16)))


@njit
def swiglu_row(x, count, out, is_bfloat16):
    """`silu(gate) * up` of a row of `count` gates, then as many ups."""
    up = x + count * (2 if is_bfloat16 else 4)
    for i in range(0, count, 16):
        gate = rounded(silu(load_part(x, i, count, is_bfloat16)), is_bfloat16)
        store_part(out, i, count, is_bfloat16, multiply(gate, load_part(up, i, count, is_bfloat16)))


@njit(forceinline=True)
def _number(place, i, is_bfloat16):
    if is_bfloat16:
        return bits_to_float(np.int64(read_half(place + i * 2)) << 16)
    return read_float(place + i * 4)


@njit(forceinline=True)
def _put(place, i, is_bfloat16, value):
    if is_bfloat16:
        write_half(place + i * 2, half_bits(value))
    else:
        write_float(place + i * 4, value)


@njit
def rotate_row(x, out, dim, cos, sin, is_interleaved, is_bfloat16):
    """Turn the pairs of `dim` channels: see kernels.reference.rotate."""
    half = dim // 2
    start = 0
    if not is_interleaved:
        end = dim * (2 if is_bfloat16 else 4) // 2
        for i in range(0, half, 16):
            c, s = load_part(cos, i, half, False), load_part(sin, i, half, False)
            a, b = load_part(x, i, half, is_bfloat16), load_part(x + end, i, half, is_bfloat16)
            store_part(out, i, half, is_bfloat16, subtract(multiply(a, c), multiply(b, s)))
            store_part(out + end, i, half, is_bfloat16, add(multiply(b, c), multiply(a, s)))
        return
    if is_bfloat16:
        start = half // 16 * 16
        for i in range(0, start, 16):
            pairs = load_ints(x + i * 4)
            a, b = pair_even(pairs), pair_odd(pairs)
            c, s = load_floats(cos + i * 4), load_floats(sin + i * 4)
            even = subtract(multiply(a, c), multiply(b, s))
            store_bfloat16_pairs(out + i * 4, even, add(multiply(a, s), multiply(b, c)))
    for i in range(start, half):
        a, b = _number(x, 2 * i, is_bfloat16), _number(x, 2 * i + 1, is_bfloat16)
        c, s = read_float(cos + i * 4), read_float(sin + i * 4)
        _put(out, 2 * i, is_bfloat16, a * c - b * s)
        _put(out, 2 * i + 1, is_bfloat16, a * s + b * c)


@njit
def log_softmax_row(x, count, out):
    """`x - max - log(sum of exp(x - max))` of a row of float32."""
    best = floats(_LOW)
    for i in range(0, count, 16):
        best = larger(keep_lanes(load_part(x, i, count, False), count - i, _LOW), best)
    most = floats(max_lanes(best))
    a = floats(_ZERO)
    b = a
    for i in range(0, count, 32):
        a = add(a, keep_lanes(exp(subtract(load_part(x, i, count, False), most)), count - i, _ZERO))
        if i + 16 < count:
            b = add(b, keep_lanes(exp(subtract(load_part(x, i + 16, count, False), most)), count - i - 16, _ZERO))
    log_sum = floats(np.float32(np.log(np.float64(sum_lanes(add(a, b))))))
    for i in range(0, count, 16):
        store_part(out, i, count, False, subtract(subtract(load_part(x, i, count, False), most), log_sum))


@njit
def sigmoid_row(x, count, out):
    """`1 / (1 + exp(-x))` of a row of float32."""
    for i in range(0, count, 16):
        falling = exp(subtract(floats(_ZERO), load_part(x, i, count, False)))
        store_part(out, i, count, False, divide(floats(_ONE), add(floats(_ONE), falling)))


_NORM, _SWIGLU, _ROTATE, _ROTATE_INTERLEAVED, _LOG_SOFTMAX, _SIGMOID = range(6)


# The arguments of the kernel, in order: rows `x` of tokens and heads, and up to two more tensors.
KIND, X, STRIDE, HEAD_STRIDE, HEADS, COUNT, WIDTH, OUT, FIRST, SECOND, EPS, IS_BFLOAT16, SCRATCH, SLOT, ROWS = range(15)


def _rows(arguments, phase, worker, workers):
    kind, count, heads = argument(arguments, KIND), argument(arguments, COUNT), argument(arguments, HEADS)
    is_bfloat16, eps = argument(arguments, IS_BFLOAT16) != 0, bits_to_float(argument(arguments, EPS))
    scratch = argument(arguments, SCRATCH) + worker * argument(arguments, SLOT)
    rows, p, q = argument(arguments, ROWS), argument(arguments, FIRST), argument(arguments, SECOND)
    for row in range(rows * worker // workers, rows * (worker + 1) // workers):
        token = row // heads
        head = row - token * heads
        source = argument(arguments, X) + token * argument(arguments, STRIDE) + head * argument(arguments, HEAD_STRIDE)
        place = argument(arguments, OUT) + row * argument(arguments, WIDTH)
        if kind == _NORM:
            norm_row(source, p, count, eps, place, is_bfloat16, scratch)
        elif kind == _SWIGLU:
            swiglu_row(source, count, place, is_bfloat16)
        elif kind == _LOG_SOFTMAX:
            log_softmax_row(source, count, place)
        elif kind == _SIGMOID:
            sigmoid_row(source, count, place)
        else:
            angles = token * (count // 2) * 4
            rotate_row(source, place, count, p + angles, q + angles, kind == _ROTATE_INTERLEAVED, is_bfloat16)


@cache
def _float_bits(value: float) -> int:
    return int(np.float32(value).view(np.int32))


def _run(kind: int, x: Tensor, out: Tensor, count: int, p: int = 0, q: int = 0, eps: float = 0.0) -> Tensor:
    """One kind of operation on all rows of `x`; those of `out` are contiguous."""
    if not out.numel():
        return out
    x, T, H, stride, head_stride = _layout(x)
    size, rows = x.element_size(), T * H
    workers = 1 if rows * count < _ALONE else min(all_workers(), rows)
    is_bfloat16 = x.dtype is torch.bfloat16
    slot = (count * 4 + 127) // 64 * 64
    scratch = torch.empty(workers * slot, dtype=torch.uint8) if kind == _NORM and is_bfloat16 else out
    arguments = (
        kind, x.data_ptr(), stride * size, head_stride * size, H, count, out.shape[-1] * size,
        out.data_ptr(), p, q, _float_bits(eps), is_bfloat16, scratch.data_ptr(), slot, rows,
    )  # fmt: skip
    launch(_rows, arguments, workers=workers)
    return out


def _layout(x: Tensor) -> tuple[Tensor, int, int, int, int]:
    """A tensor as rows of its last dimension: it, tokens, heads, and the strides of both; copied only if it must be."""
    if x.is_contiguous():
        T, H = (x.shape[0], x.shape[1]) if x.ndim == 3 else (x.numel() // x.shape[-1], 1)
        return x, T, H, H * x.shape[-1], x.shape[-1]
    if x.ndim == 3 and x.stride(2) == 1:
        return x, x.shape[0], x.shape[1], x.stride(0), x.stride(1)
    if x.ndim == 2 and x.stride(1) == 1:
        return x, x.shape[0], 1, x.stride(0), 0
    return _layout(x.contiguous())


def rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """See reference.rms_norm: (..., D) float32 or bfloat16, on the CPU."""
    out_TD = torch.empty(x_TD.shape, dtype=x_TD.dtype)
    weight_D = weight_D.contiguous()
    return _run(_NORM, x_TD, out_TD, x_TD.shape[-1], weight_D.data_ptr(), eps=eps)


def swiglu(gate_up_T2F: Tensor) -> Tensor:
    """See reference.swiglu: (..., 2F) -> (..., F), float32 or bfloat16, on the CPU."""
    F = gate_up_T2F.shape[-1] // 2
    out_TF = torch.empty((*gate_up_T2F.shape[:-1], F), dtype=gate_up_T2F.dtype)
    return _run(_SWIGLU, gate_up_T2F, out_TF, F)


def rotate(x_THR: Tensor, cos_TR: Tensor, sin_TR: Tensor, *, interleaved: bool) -> Tensor:
    """See reference.rotate: (T, H, R) float32 or bfloat16, cos and sin (T, R/2) float32, on the CPU."""
    out_THR = torch.empty(x_THR.shape, dtype=x_THR.dtype)
    cos_TR, sin_TR = cos_TR.contiguous(), sin_TR.contiguous()
    kind = _ROTATE_INTERLEAVED if interleaved else _ROTATE
    return _run(kind, x_THR, out_THR, x_THR.shape[-1], cos_TR.data_ptr(), sin_TR.data_ptr())


def log_softmax(logits_TW: Tensor) -> Tensor:
    """See reference.log_softmax: (..., W) float32, on the CPU."""
    return _run(_LOG_SOFTMAX, logits_TW, torch.empty(logits_TW.shape), logits_TW.shape[-1])


def sigmoid(x_TE: Tensor) -> Tensor:
    """See reference.sigmoid: (..., E) float32, on the CPU."""
    return _run(_SIGMOID, x_TE, torch.empty(x_TE.shape), x_TE.shape[-1])
