"""A checksum of memory at about the speed of reading it, to tell one set of weights or one cached page from another.

64 bytes at a time go into eight lanes of 64 bits; four such states take turns, so that the processor never waits for a
product. Each step maps a lane one-to-one, in the word as in what stood there before: two inputs of one length that
differ in a single word never agree before the finish, which is BLAKE2b over all lanes and the length. It is no defence
against someone who looks for two inputs that agree.
Source: the round of xxHash's XXH64, github.com/Cyan4973/xxHash, doc/xxhash_spec.md.
"""

import hashlib
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit
from torch import Tensor

from seamount.kernels.cpu.instructions import I64, Bytes, address, constant, instruction, read
from seamount.kernels.cpu.vector import load_bytes, store_bytes

_BLOCK = 256
_SQRT2, _SQRT5 = 0x6A09E667F3BCC909, 0x3C6EF372FE94F82B  # fractions of roots: odd, and of no design
_TURN = 31


@instruction(Bytes, Bytes, address)
def _mixed(builder: Any, state: Any, place: Any) -> Any:
    """Eight lanes after eight words: `rotate(lane + word * sqrt5, 31) * sqrt2`."""
    lanes = ir.VectorType(I64, 8)
    word = builder.mul(read(builder, place, lanes), constant(lanes, _SQRT5))
    total = builder.add(builder.bitcast(state, lanes), word)
    left, right = builder.shl(total, constant(lanes, _TURN)), builder.lshr(total, constant(lanes, 64 - _TURN))
    return builder.bitcast(builder.mul(builder.or_(left, right), constant(lanes, _SQRT2)), Bytes.ir_type)


@njit(nogil=True, cache=True)
def _absorb(place, blocks, states):
    a, b, c, d = load_bytes(states), load_bytes(states + 64), load_bytes(states + 128), load_bytes(states + 192)
    for _ in range(blocks):
        a, b = _mixed(a, place), _mixed(b, place + 64)
        c, d = _mixed(c, place + 128), _mixed(d, place + 192)
        place += _BLOCK
    store_bytes(states, a)
    store_bytes(states + 64, b)
    store_bytes(states + 128, c)
    store_bytes(states + 192, d)


def checksum(data_B: Tensor) -> bytes:
    """32 bytes that tell this memory from other memory: (bytes) uint8, contiguous, on the CPU.

    Cost: one read; other Python threads run meanwhile.
    """
    assert data_B.dtype is torch.uint8, "a checksum is one of bytes: view the tensor as uint8"
    assert data_B.is_contiguous(), "the bytes must lie in a row"
    assert data_B.is_cpu, "the bytes must be on the CPU"
    states = np.arange(1, _BLOCK // 8 + 1, dtype=np.uint64) * np.uint64(_SQRT5)
    whole = data_B.numel() // _BLOCK
    _absorb(data_B.data_ptr(), whole, states.ctypes.data)
    if rest := data_B.numel() % _BLOCK:
        last = np.zeros(_BLOCK, np.uint8)
        last[:rest] = data_B[-rest:].numpy()
        _absorb(last.ctypes.data, 1, states.ctypes.data)
    return hashlib.blake2b(states.tobytes() + data_B.numel().to_bytes(8, "little"), digest_size=32).digest()
