"""The matrix-vector product of decoding on a CPU: bfloat16 weights widened in registers, float32 sums.

One token reads every weight once, so the product should cost no more than the reading. torch's bfloat16 product at one
row does not reach that (docs/log.md); this loop nearly does.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import carray, njit, prange, types
from numba.extending import intrinsic
from torch import Tensor

# Rows of the weight that one thread takes at once: enough to pay for taking them.
_BLOCK = 16
# Where there is no OpenMP, numba's own thread pool ends the process if two threads enter it at once.
_one_at_a_time = threading.Lock()


@intrinsic
def _word_pointer(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(16).as_pointer())

    return types.CPointer(types.uint16)(types.int64), generate


@intrinsic
def _widened(typing_context: Any, word: Any) -> Any:
    """A bfloat16, as the upper half of a float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = builder.shl(builder.zext(arguments[0], ir.IntType(32)), ir.IntType(32)(16))
        return builder.bitcast(wide, ir.FloatType())

    return types.float32(types.uint16), generate


@intrinsic
def _narrowed(typing_context: Any, value: Any) -> Any:
    """A float32 rounded to the nearest bfloat16, ties to even; a NaN stays one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(32)
        bits = builder.bitcast(arguments[0], word)
        upper = builder.lshr(bits, word(16))
        odd = builder.and_(upper, word(1))
        rounded = builder.lshr(builder.add(bits, builder.add(odd, word(0x7FFF))), word(16))
        is_nan = builder.icmp_unsigned(">", builder.and_(bits, word(0x7FFFFFFF)), word(0x7F800000))
        kept = builder.select(is_nan, builder.or_(upper, word(0x40)), rounded)
        return builder.trunc(kept, ir.IntType(16))

    return types.uint16(types.float32), generate


@njit(parallel=True, nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _bfloat16_rows(x_address: int, weight_address: int, out_address: int, F: int, D: int) -> None:  # pragma: no cover
    word_D = carray(_word_pointer(x_address), (D,))
    weight_FD = carray(_word_pointer(weight_address), (F, D))
    out_F = carray(_word_pointer(out_address), (F,))
    x_D = np.empty(D, np.float32)
    for column in range(D):
        x_D[column] = _widened(word_D[column])
    for block in prange((F + _BLOCK - 1) // _BLOCK):
        for row in range(block * _BLOCK, min(F, (block + 1) * _BLOCK)):
            total = types.float32(0)
            for column in range(D):
                total += x_D[column] * _widened(weight_FD[row, column])
            out_F[row] = _narrowed(total)


def is_one_row_of_bfloat16(x: Tensor, weight: Tensor) -> bool:
    """Whether `one_row` may take this product: one row, bfloat16, on the CPU, no gradient wanted."""
    return (
        x.dtype is torch.bfloat16
        and weight.dtype is torch.bfloat16
        and x.numel() == weight.shape[1]
        and x.device.type == "cpu"
        and weight.is_contiguous()
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
    )


def one_row(x_1D: Tensor, weight_FD: Tensor) -> Tensor:
    """`x W^T` of a single row: (..., 1, D) bfloat16 -> (..., 1, F) bfloat16.

    Equals: kernels.reference.linear, with sums in float32 that are rounded once.
    Cost: reads the weight once, 2 F D bytes.
    """
    F, D = weight_FD.shape
    x_1D = x_1D.contiguous()
    out_1F = torch.empty((*x_1D.shape[:-1], F), dtype=torch.bfloat16)
    with _one_at_a_time:
        _bfloat16_rows(x_1D.data_ptr(), weight_FD.data_ptr(), out_1F.data_ptr(), F, D)
    return out_1F
