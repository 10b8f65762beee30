"""`x W^T + b` in float32 and bfloat16: every output in one order of sums, whatever else is in the batch.

Equals: kernels.reference.linear, within the rounding of float32 sums.
"""

import torch
from numba import njit
from torch import Tensor

from seamount.kernels.cpu import bfloat16, float32
from seamount.kernels.cpu.bfloat16 import BLOCK, CONFIGURATIONS, RESULT_BYTES, pack, pack_bytes, weight_bytes
from seamount.kernels.cpu.launch import all_workers, argument, launch
from seamount.kernels.cpu.partial import load_some_floats, store_some_floats
from seamount.kernels.cpu.team import fetch_add
from seamount.kernels.cpu.tiles import configure_tiles, release_tiles
from seamount.kernels.cpu.vector import add, read_int64

UNIT = 32
# Products below this many multiplications are not worth waking another thread.
ALONE = 1 << 16


@njit(forceinline=True)
def next_unit(counter):
    """The number of a unit of work that no other worker has taken."""
    return fetch_add(counter, 1)


@njit
def bfloat16_unit(weight, stride, rows, bias, packed, count, K, out, out_stride, configurations, scratch):
    """Up to 32 outputs of all tokens, from their packed blocks.

    `scratch` holds the results of one block, then the unit's weights.
    """
    weights = scratch + RESULT_BYTES
    direct = bfloat16.prepare(weight, stride, rows, K, count > BLOCK, weights)
    width = 0
    for first in range(0, count, BLOCK):
        tokens = min(BLOCK, count - first)
        if tokens != width:
            width = tokens
            configure_tiles(configurations + tokens * 64)
        block = packed + first // BLOCK * pack_bytes(K)
        bfloat16.products(weight, stride, direct, weights, block, tokens, K, scratch)
        place = out + first * out_stride
        bfloat16.store_results(bfloat16.outputs(scratch), tokens, rows, bias, place, out_stride)
    release_tiles()


@njit
def _add_bias(out, bias, rows, T, stride):
    for token in range(T):
        for row in range(0, rows, 16):
            place = out + token * stride + row * 4
            value = add(load_some_floats(place, rows - row), load_some_floats(bias + row * 4, rows - row))
            store_some_floats(place, rows - row, value)


@njit
def products(
    is_bfloat16, source, x_stride, x_step, starts, blocks, active, groups, weight, weight_step, N, K, bias, out,
    out_stride, out_step, configurations, scratch, counter, worker,
):  # fmt: skip
    """Several products, each of a group of consecutive tokens with a weight (N, K) of its own.

    Group g of the `groups` in `active` holds the tokens starts[g] to starts[g + 1]. `source` has them packed, in blocks
    of which the group's first is blocks[g] (bfloat16), or as they are (float32). The tables are addresses of int64. A
    stride leads from one token to the next, a step from one group to the next besides.
    """
    size = 2 if is_bfloat16 else 4
    row_bytes = K * size
    per_group = (N + UNIT - 1) // UNIT
    unit = worker
    while unit < groups * per_group:
        group = read_int64(active + unit // per_group * 8)
        row = unit % per_group * UNIT
        if is_bfloat16:
            # The last unit overlaps the one before it, so that it is whole, and writes the same bits again.
            row = max(0, min(row, N - UNIT))
        place = weight + group * weight_step + row * row_bytes
        start = read_int64(starts + group * 8)
        tokens, rows = read_int64(starts + group * 8 + 8) - start, min(UNIT, N - row)
        target = out + start * out_stride + group * out_step + row * size
        extra = bias
        if bias != 0:
            extra = bias + row * size
        if is_bfloat16:
            packed = source + read_int64(blocks + group * 8) * pack_bytes(K)
            bfloat16_unit(place, row_bytes, rows, extra, packed, tokens, K, target, out_stride, configurations, scratch)
        else:
            x = source + start * x_stride + group * x_step
            float32.products(x, x_stride, tokens, place, row_bytes, rows, K, target, out_stride)
            if bias != 0:
                _add_bias(target, extra, rows, tokens, out_stride)
        unit = next_unit(counter)


# The arguments of the kernel, in order.
IS_BFLOAT16, X, WEIGHT, BIAS, OUT, TOKENS, ROWS, INPUTS, CONFIGURATION, TABLE, COUNTERS, SCRATCH, SLOT = range(13)


def _linear(arguments, phase, worker, workers):
    """Phase 0 packs more tokens than one block; phase 1 multiplies. Without the packing there is phase 1 alone."""
    is_bfloat16 = argument(arguments, IS_BFLOAT16) != 0
    x, T, K = argument(arguments, X), argument(arguments, TOKENS), argument(arguments, INPUTS)
    counters, scratch, slot = argument(arguments, COUNTERS), argument(arguments, SCRATCH), argument(arguments, SLOT)
    mine, shared = scratch + worker * slot, scratch + workers * slot
    source = x
    if is_bfloat16 and T <= BLOCK:
        source = mine + slot - pack_bytes(K)
        pack(x, K * 2, T, K, source)
    elif is_bfloat16:
        source = shared
        if phase == 0:
            block = worker
            while block * BLOCK < T:
                first = block * BLOCK
                pack(x + first * K * 2, K * 2, min(BLOCK, T - first), K, shared + block * pack_bytes(K))
                block = next_unit(counters)
            return
    table, N, size = argument(arguments, TABLE), argument(arguments, ROWS), 2 if is_bfloat16 else 4
    products(
        is_bfloat16, source, K * size, 0, table, table, table, 1, argument(arguments, WEIGHT), 0, N, K,
        argument(arguments, BIAS), argument(arguments, OUT), N * size, 0, argument(arguments, CONFIGURATION), mine,
        counters + phase * 64, worker,
    )  # fmt: skip


def slot_bytes(K: int, is_bfloat16: bool) -> int:
    """Scratch of one thread: a block's results, a unit's weights, a block of tokens."""
    return RESULT_BYTES + weight_bytes(K) + pack_bytes(K) if is_bfloat16 else 0


def counters(phases: int, workers: int) -> Tensor:
    """A counter for each phase, in a cache line of its own: worker w begins with unit w, the rest are taken."""
    return torch.full((8 * phases,), workers)


def linear(x_TD: Tensor, weight_FD: Tensor, bias_F: Tensor | None = None) -> Tensor:
    """`x W^T + b`: (..., D) -> (..., F), float32 or bfloat16, all of one dtype, on the CPU.

    Sums are float32, in an order that depends on D alone; a bfloat16 result is rounded once, after the bias.
    Cost: 2 T D F operations; reads the weight once.
    """
    F, D = weight_FD.shape
    x_TD, weight_FD = x_TD.contiguous(), weight_FD.contiguous()
    out_TF = torch.empty((*x_TD.shape[:-1], F), dtype=x_TD.dtype)
    T = x_TD.numel() // D if D else 0
    if not out_TF.numel() or not D:
        return out_TF.zero_() if bias_F is None else out_TF.copy_(bias_F.expand_as(out_TF))
    bias_F = None if bias_F is None else bias_F.contiguous()
    is_bfloat16 = x_TD.dtype is torch.bfloat16
    workers = all_workers() if T * F * D >= ALONE else 1
    phases = 2 if is_bfloat16 and T > BLOCK else 1
    slot = slot_bytes(D, is_bfloat16)
    blocks = (T + BLOCK - 1) // BLOCK if phases == 2 else 0
    scratch = torch.empty(workers * slot + blocks * pack_bytes(D), dtype=torch.uint8)
    # One group: it starts at token 0 and ends at T, and its number and its first block are 0.
    table = torch.tensor((0, T))
    taken = counters(phases, workers)
    arguments = (
        is_bfloat16, x_TD.data_ptr(), weight_FD.data_ptr(), 0 if bias_F is None else bias_F.data_ptr(),
        out_TF.data_ptr(), T, F, D, CONFIGURATIONS.data_ptr(), table.data_ptr(), taken.data_ptr(), scratch.data_ptr(),
        slot,
    )  # fmt: skip
    launch(_linear, arguments, phases=phases, workers=workers)
    return out_TF
