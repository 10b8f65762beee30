"""What this machine can do at most: reading memory, and multiplying from registers. Speeds are quoted as shares of it.

Nothing can read weights faster than the loop here reads, nor multiply faster than registers allow; the first is nearly
reached in decoding, the second never, because operands must be loaded.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from seamount.kernels.cpu.compiling import inlined
from seamount.kernels.cpu.launch import all_workers, argument, launch
from seamount.kernels.cpu.target import TARGET
from seamount.kernels.cpu.tiles import (
    configure_tiles,
    release_tiles,
    tile_configuration,
    tile_dot_bfloat16,
    tile_dot_int8,
    tile_zero,
)
from seamount.kernels.cpu.vector import (
    add_ints,
    dot4,
    floats,
    fma,
    ints,
    load_bytes,
    load_floats,
    load_ints,
    prefetch_far,
    store_floats,
    store_ints,
    zero_ints,
)

_BUFFER_BYTES = 1 << 29
_PLACE = 8192
_ROUNDS = 5
_REPEATS = 20_000


@dataclass(frozen=True)
class Limits:
    """Bytes and operations per second of all threads together; a multiplication and an addition are two operations."""

    path: str
    threads: int
    read: float
    int8: float
    bfloat16: float
    float32: float


def _read(arguments, phase, worker, workers):
    """Add up this worker's share of a buffer in four places at once, asking for each line some pages before.

    Memory gives most in this way: by turns 15 to 50 % more than if the share was read from end to end (docs/log.md).
    """
    size = argument(arguments, 1) // workers // (4 * _PLACE) * (4 * _PLACE)
    place = argument(arguments, 0) + worker * size
    a, b, c, d = zero_ints(), zero_ints(), zero_ints(), zero_ints()
    for first in range(place, place + size, 4 * _PLACE):
        for at in range(first, first + _PLACE, 64):
            for other in range(4):
                prefetch_far(at + (4 + other) * _PLACE)
            a = add_ints(a, load_ints(at))
            b = add_ints(b, load_ints(at + _PLACE))
            c = add_ints(c, load_ints(at + 2 * _PLACE))
            d = add_ints(d, load_ints(at + 3 * _PLACE))
    store_ints(argument(arguments, 2) + worker * 64, add_ints(add_ints(a, b), add_ints(c, d)))


@inlined
def _four_dots(sums, left, right):
    a, b, c, d = sums
    return dot4(a, left, right), dot4(b, left, right), dot4(c, left, right), dot4(d, left, right)


def _int8_vectors(arguments, phase, worker, workers):
    """Dot products of four bytes, eight chains."""
    place = argument(arguments, 2) + worker * 64
    left, right = load_bytes(place), load_bytes(argument(arguments, 2))
    # Chains that begin alike would be compiled to one.
    first = (ints(np.int32(0)), ints(np.int32(1)), ints(np.int32(2)), ints(np.int32(3)))
    second = (ints(np.int32(4)), ints(np.int32(5)), ints(np.int32(6)), ints(np.int32(7)))
    for _ in range(argument(arguments, 1)):
        first, second = _four_dots(first, left, right), _four_dots(second, left, right)
    total = add_ints(add_ints(first[0], first[1]), add_ints(first[2], first[3]))
    store_ints(place, add_ints(total, add_ints(add_ints(second[0], second[1]), add_ints(second[2], second[3]))))


def _int8_tiles(arguments, phase, worker, workers):
    """Tile dots of int8, four sums."""
    configure_tiles(argument(arguments, 0))
    tile_zero(0)
    tile_zero(1)
    tile_zero(2)
    tile_zero(3)
    tile_zero(4)
    tile_zero(5)
    for _ in range(argument(arguments, 1)):
        tile_dot_int8(0, 4, 5)
        tile_dot_int8(1, 4, 5)
        tile_dot_int8(2, 4, 5)
        tile_dot_int8(3, 4, 5)
    release_tiles()


def _bfloat16_tiles(arguments, phase, worker, workers):
    """Tile dots of bfloat16, four sums."""
    configure_tiles(argument(arguments, 0))
    tile_zero(0)
    tile_zero(1)
    tile_zero(2)
    tile_zero(3)
    tile_zero(4)
    tile_zero(5)
    for _ in range(argument(arguments, 1)):
        tile_dot_bfloat16(0, 4, 5)
        tile_dot_bfloat16(1, 4, 5)
        tile_dot_bfloat16(2, 4, 5)
        tile_dot_bfloat16(3, 4, 5)
    release_tiles()


@inlined
def _four_fmas(sums, value):
    a, b, c, d = sums
    return fma(value, value, a), fma(value, value, b), fma(value, value, c), fma(value, value, d)


def _float32_vectors(arguments, phase, worker, workers):
    """Fused multiply-adds, eight chains."""
    place = argument(arguments, 2) + worker * 512
    value = load_floats(place)
    first = (floats(0.0), floats(1.0), floats(2.0), floats(3.0))
    second = (floats(4.0), floats(5.0), floats(6.0), floats(7.0))
    for _ in range(argument(arguments, 1)):
        first, second = _four_fmas(first, value), _four_fmas(second, value)
    for number, part in enumerate(first + second):
        store_floats(place + number * 64, part)


def _rate(kernel: Callable[..., None], arguments: list[int], work: float) -> float:
    """Work per second, at best of some rounds: others on the machine only slow it down."""
    workers, seconds = all_workers(), []
    for _ in range(_ROUNDS + 1):
        started = time.perf_counter()
        launch(kernel, arguments, workers=workers)
        seconds.append(time.perf_counter() - started)
    return work / min(seconds[1:])


def read_limit() -> float:
    """Bytes per second at which all threads read a buffer larger than any cache."""
    buffer, out = torch.ones(_BUFFER_BYTES, dtype=torch.uint8), torch.zeros(1 << 16, dtype=torch.uint8)
    return _rate(_read, [buffer.data_ptr(), _BUFFER_BYTES, out.data_ptr()], _BUFFER_BYTES)


def int8_limit() -> float:
    """Operations per second of int8 products from registers."""
    tiles, out = torch.tensor(list(tile_configuration()), dtype=torch.uint8), torch.zeros(1 << 16, dtype=torch.uint8)
    arguments: list[Any] = [tiles.data_ptr(), _REPEATS, out.data_ptr()]
    kernel, operations = (_int8_tiles, 4 * 2 * 16 * 16 * 64) if TARGET.has_amx else (_int8_vectors, 8 * 2 * 64)
    return _rate(kernel, arguments, all_workers() * _REPEATS * operations)


def limits() -> Limits:
    """Measure this machine: about two seconds, and once the time to compile four small loops."""
    tiles, out = torch.tensor(list(tile_configuration()), dtype=torch.uint8), torch.zeros(1 << 16, dtype=torch.uint8)
    arguments = [tiles.data_ptr(), _REPEATS, out.data_ptr()]
    work = all_workers() * _REPEATS
    float32 = _rate(_float32_vectors, arguments, work * 8 * 2 * 16)
    # Without tiles the canonical bfloat16 product is float32's fused multiply-adds.
    bfloat16 = _rate(_bfloat16_tiles, arguments, work * 4 * 2 * 16 * 16 * 32) if TARGET.has_amx else float32
    return Limits(TARGET.path, all_workers(), read_limit(), int8_limit(), bfloat16, float32)
