"""Each head's own product, as absorbed latent attention needs it: a group of dense.py's products for every head."""

import torch
from torch import Tensor

from seamount.kernels.cpu.bfloat16 import BLOCK, CONFIGURATIONS, pack, pack_bytes
from seamount.kernels.cpu.dense import ALONE, counters, next_unit, products, slot_bytes
from seamount.kernels.cpu.launch import all_workers, argument, launch

# The arguments of the kernel, in order.
(
    IS_BFLOAT16, X, WEIGHT, WEIGHT_STEP, OUT, TOKENS, HEADS, ROWS, INPUTS, CONFIGURATION, TABLES, COUNTERS, SCRATCH,
    SLOT, PACKED,
) = range(15)  # fmt: skip


def _heads(arguments, phase, worker, workers):
    """Phase 0 packs every head's tokens, where they are bfloat16; phase 1 multiplies."""
    is_bfloat16, x, packed = argument(arguments, IS_BFLOAT16) != 0, argument(arguments, X), argument(arguments, PACKED)
    T, H, N = argument(arguments, TOKENS), argument(arguments, HEADS), argument(arguments, ROWS)
    K, size = argument(arguments, INPUTS), 2 if is_bfloat16 else 4
    counter, blocks = argument(arguments, COUNTERS) + phase * 64, (T + BLOCK - 1) // BLOCK
    if phase == 0:
        unit = worker
        while is_bfloat16 and unit < H * blocks:
            head, first = unit // blocks, unit % blocks * BLOCK
            place = x + (first * H + head) * K * size
            pack(place, H * K * size, min(BLOCK, T - first), K, packed + unit * pack_bytes(K))
            unit = next_unit(counter)
        return
    starts = argument(arguments, TABLES)
    first_blocks = starts + (H + 1) * 8
    # The tokens of head h are numbered from h T on, and stand where those of head 0 stand, one head further.
    products(
        is_bfloat16, packed if is_bfloat16 else x, H * K * size, (1 - T * H) * K * size, starts, first_blocks,
        first_blocks + (H + 1) * 8, H, argument(arguments, WEIGHT), argument(arguments, WEIGHT_STEP), N, K, 0,
        argument(arguments, OUT), H * N * size, (1 - T * H) * N * size, argument(arguments, CONFIGURATION),
        argument(arguments, SCRATCH) + worker * argument(arguments, SLOT), counter, worker,
    )  # fmt: skip


def head_linear(x_THK: Tensor, weight_HNK: Tensor) -> Tensor:
    """See reference.head_linear: float32 or bfloat16, both of one dtype, on the CPU.

    Cost: reads each weight once; a weight whose rows are not contiguous is copied first.
    """
    (T, H, K), N = x_THK.shape, weight_HNK.shape[1]
    x_THK, out_THN = x_THK.contiguous(), torch.empty(T, H, N, dtype=x_THK.dtype)
    if not out_THN.numel() or not K:
        return out_THN.zero_()
    if weight_HNK.stride(2) != 1 or weight_HNK.stride(1) != K:
        weight_HNK = weight_HNK.contiguous()
    is_bfloat16, blocks = x_THK.dtype is torch.bfloat16, (T + BLOCK - 1) // BLOCK
    workers = all_workers() if T * H * N * K >= ALONE else 1
    slot = slot_bytes(K, is_bfloat16)
    scratch = torch.empty(workers * slot, dtype=torch.uint8)
    packed = torch.empty(H * blocks * pack_bytes(K) if is_bfloat16 else 0, dtype=torch.uint8)
    number = torch.arange(H + 1)
    tables, taken = torch.stack((number * T, number * blocks, number)), counters(2, workers)
    arguments = (
        is_bfloat16, x_THK.data_ptr(), weight_HNK.data_ptr(), weight_HNK.stride(0) * x_THK.element_size(),
        out_THN.data_ptr(), T, H, N, K, CONFIGURATIONS.data_ptr(), tables.data_ptr(), taken.data_ptr(),
        scratch.data_ptr(), slot, packed.data_ptr(),
    )  # fmt: skip
    launch(_heads, arguments, phases=2, workers=workers)
    return out_THN
