"""The routed experts of a mixture in float32 and bfloat16: tokens grouped by expert, results added in slot order.

Each group is a product like any other (dense.py), so that a token's result does not depend on who shares its experts.
Roundings are the reference's: after each product, after SiLU, after the product with `up`, and at the end.
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor

from seamount.kernels.cpu.bfloat16 import BLOCK, CONFIGURATIONS, pack, pack_bytes
from seamount.kernels.cpu.dense import ALONE, counters, next_unit, products, slot_bytes
from seamount.kernels.cpu.launch import all_workers, argument, launch
from seamount.kernels.cpu.norms import swiglu_row
from seamount.kernels.cpu.partial import load_part, store_part
from seamount.kernels.cpu.vector import add, floats, multiply, read_float, read_int64, write_int64

_ZERO = np.float32(0)


# The arguments of the kernel, in order.
(
    IS_BFLOAT16, X, EXPERT, WEIGHT, GATE_UP, DOWN, OUT, TOKENS, CHOSEN, MODEL, FEED, EXPERTS, CONFIGURATION, TABLE,
    COUNTERS, SCRATCH, SLOT, GATHERED, HIDDEN, PARTS, PACKED,
) = range(21)  # fmt: skip


@njit(forceinline=True)
def _tables(table, E, N):
    """Where in the table stand: the number of active experts, each expert's first place, its first block, the active
    experts, the slot at each place, the place of each slot."""
    starts = table + 8
    blocks = starts + (E + 1) * 8
    active = blocks + (E + 1) * 8
    slots = active + E * 8
    return starts, blocks, active, slots, slots + N * 8


@njit
def _group(expert, N, E, table):
    """Order the slots by their experts. No expert is active where a number is not one of them."""
    starts, blocks, active, slots, places = _tables(table, E, N)
    counts = np.zeros(E, np.int64)
    write_int64(table, 0)
    for slot in range(N):
        number = read_int64(expert + slot * 8)
        if number < 0 or number >= E:
            return
        counts[number] += 1
    groups, place, block = 0, 0, 0
    for number in range(E):
        write_int64(starts + number * 8, place)
        write_int64(blocks + number * 8, block)
        if counts[number] > 0:
            write_int64(active + groups * 8, number)
            groups += 1
        block += (counts[number] + BLOCK - 1) // BLOCK
        place += counts[number]
        counts[number] = place - counts[number]
    write_int64(starts + E * 8, place)
    write_int64(blocks + E * 8, block)
    for slot in range(N):
        number = read_int64(expert + slot * 8)
        write_int64(slots + counts[number] * 8, slot)
        write_int64(places + slot * 8, counts[number])
        counts[number] += 1
    write_int64(table, groups)


@njit
def _copy_row(source, count, is_bfloat16, out):
    for i in range(0, count, 16):
        store_part(out, i, count, is_bfloat16, load_part(source, i, count, is_bfloat16))


@njit
def _gather(is_bfloat16, x, K, D, first, last, slots, rows, packed):
    """The tokens of places first .. last - 1, at `rows`; in bfloat16 they are then packed."""
    row_bytes = D * (2 if is_bfloat16 else 4)
    for place in range(first, last):
        token = read_int64(slots + place * 8) // K
        _copy_row(x + token * row_bytes, D, is_bfloat16, rows + (place - first) * row_bytes)
    if is_bfloat16:
        pack(rows, row_bytes, last - first, D, packed)


@njit
def _activate(is_bfloat16, hidden, F, first, last, rows, packed):
    """SwiGLU of places first .. last - 1, at `rows`; in bfloat16 they are then packed."""
    row_bytes = F * (2 if is_bfloat16 else 4)
    for place in range(first, last):
        swiglu_row(hidden + place * 2 * row_bytes, F, rows + (place - first) * row_bytes, is_bfloat16)
    if is_bfloat16:
        pack(rows, row_bytes, last - first, F, packed)


@njit
def _combine(is_bfloat16, parts, weight, places, token, K, D, out):
    """`sum over k of weight[token, k] * part[token, k]`, in the order of k."""
    row_bytes = D * (2 if is_bfloat16 else 4)
    for i in range(0, D, 16):
        total = floats(_ZERO)
        for k in range(K):
            part = load_part(parts + read_int64(places + (token * K + k) * 8) * row_bytes, i, D, is_bfloat16)
            total = add(total, multiply(floats(read_float(weight + (token * K + k) * 4)), part))
        store_part(out + token * row_bytes, i, D, is_bfloat16, total)


@njit
def _by_blocks(arguments, is_second, counter, worker):
    """Gather the tokens of every expert's blocks, or run SwiGLU on what has become of them."""
    is_bfloat16, E = argument(arguments, IS_BFLOAT16) != 0, argument(arguments, EXPERTS)
    K, D, F = argument(arguments, CHOSEN), argument(arguments, MODEL), argument(arguments, FEED)
    starts, blocks, active, slots, _ = _tables(argument(arguments, TABLE), E, argument(arguments, TOKENS) * K)
    gathered, packed = argument(arguments, GATHERED), argument(arguments, PACKED)
    size = 2 if is_bfloat16 else 4
    unit, group = worker, 0
    while unit < read_int64(blocks + E * 8):
        expert = read_int64(active + group * 8)
        while unit >= read_int64(blocks + expert * 8 + 8):
            group += 1
            expert = read_int64(active + group * 8)
        first = read_int64(starts + expert * 8) + (unit - read_int64(blocks + expert * 8)) * BLOCK
        last = min(first + BLOCK, read_int64(starts + expert * 8 + 8))
        if is_second:
            hidden = argument(arguments, HIDDEN)
            _activate(is_bfloat16, hidden, F, first, last, gathered + first * F * size, packed + unit * pack_bytes(F))
        else:
            rows = gathered + first * D * size
            _gather(is_bfloat16, argument(arguments, X), K, D, first, last, slots, rows, packed + unit * pack_bytes(D))
        unit = next_unit(counter)


@njit
def _multiply(arguments, is_second, counter, worker):
    """All gathered tokens by their experts' gate and up, or by their down."""
    is_bfloat16, E = argument(arguments, IS_BFLOAT16) != 0, argument(arguments, EXPERTS)
    table, N = argument(arguments, TABLE), argument(arguments, TOKENS) * argument(arguments, CHOSEN)
    starts, blocks, active, _, _ = _tables(table, E, N)
    D, F = argument(arguments, MODEL), argument(arguments, FEED)
    weight, rows, inputs, out = argument(arguments, GATE_UP), 2 * F, D, argument(arguments, HIDDEN)
    if is_second:
        weight, rows, inputs, out = argument(arguments, DOWN), D, F, argument(arguments, PARTS)
    source, size = argument(arguments, PACKED if is_bfloat16 else GATHERED), 2 if is_bfloat16 else 4
    products(
        is_bfloat16, source, inputs * size, 0, starts, blocks, active, read_int64(table), weight,
        rows * inputs * size, rows, inputs, 0, out, rows * size, 0, argument(arguments, CONFIGURATION),
        argument(arguments, SCRATCH) + worker * argument(arguments, SLOT), counter, worker,
    )  # fmt: skip


def _experts(arguments, phase, worker, workers):
    """Phases: group, gather, gate and up, SwiGLU, down, combine."""
    table, T, K = argument(arguments, TABLE), argument(arguments, TOKENS), argument(arguments, CHOSEN)
    E, D = argument(arguments, EXPERTS), argument(arguments, MODEL)
    counter = argument(arguments, COUNTERS) + phase * 64
    if phase == 0:
        if worker == 0:
            _group(argument(arguments, EXPERT), T * K, E, table)
    elif read_int64(table) == 0:
        return
    elif phase == 1 or phase == 3:
        _by_blocks(arguments, phase == 3, counter, worker)
    elif phase == 2 or phase == 4:
        _multiply(arguments, phase == 4, counter, worker)
    else:
        _, _, _, _, places = _tables(table, E, T * K)
        is_bfloat16, parts = argument(arguments, IS_BFLOAT16) != 0, argument(arguments, PARTS)
        for token in range(T * worker // workers, T * (worker + 1) // workers):
            _combine(is_bfloat16, parts, argument(arguments, WEIGHT), places, token, K, D, argument(arguments, OUT))


def grouped_experts(
    x_TD: Tensor, expert_TK: Tensor, weight_TK: Tensor, gate_up_E2FD: Tensor, down_EDF: Tensor
) -> Tensor:
    """See reference.grouped_experts: x, gate_up and down float32 or bfloat16, all of one dtype, on the CPU."""
    (T, K), (E, D, F) = expert_TK.shape, down_EDF.shape
    out_TD = torch.empty(T, D, dtype=x_TD.dtype)
    if not T:
        return out_TD
    given = [x_TD, expert_TK.long(), weight_TK.float(), gate_up_E2FD, down_EDF]
    given = [tensor.contiguous() for tensor in given]
    is_bfloat16, N, wide = x_TD.dtype is torch.bfloat16, T * K, max(D, F)
    workers = all_workers() if N * F * D >= ALONE else 1
    slot = slot_bytes(wide, is_bfloat16)
    scratch = torch.empty(workers * slot, dtype=torch.uint8)
    table, taken = torch.empty(3 + 3 * E + 2 * N, dtype=torch.int64), counters(6, workers)
    rows, hidden, parts = (torch.empty(N, width, dtype=x_TD.dtype) for width in (wide, 2 * F, D))
    packed = torch.empty(min(N, N // BLOCK + E) * pack_bytes(wide) if is_bfloat16 else 0, dtype=torch.uint8)
    arguments = (
        is_bfloat16, *(tensor.data_ptr() for tensor in given), out_TD.data_ptr(), T, K, D, F, E,
        *(tensor.data_ptr() for tensor in (CONFIGURATIONS, table, taken, scratch)), slot,
        *(tensor.data_ptr() for tensor in (rows, hidden, parts, packed)),
    )  # fmt: skip
    launch(_experts, arguments, phases=6, workers=workers)
    assert int(table[0]) > 0, f"an expert's number is not one of 0 to {E - 1}"
    return out_TD
