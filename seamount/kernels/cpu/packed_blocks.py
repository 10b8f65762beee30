"""A packed row block as the kernels read it: where its parts stand, and int4's tables. Layout: kernels/packing.py."""

from seamount.kernels.cpu.compiling import inlined
from seamount.kernels.cpu.group_products import group_row_bytes, is_grouped
from seamount.kernels.cpu.instructions import Bytes, address, instruction
from seamount.kernels.cpu.target import TARGET
from seamount.kernels.cpu.vector import scaled, scaled_fast
from seamount.kernels.packing import CODEBOOK

INT4, INT8 = 4, 8


@instruction(Bytes, address)
def tables(builder, place):
    """Four tables of int4's values, biased, one for each group scale at an address."""
    return (scaled_fast if TARGET.has_avx512 else scaled)(builder, tuple(int(value) for value in CODEBOOK), place)


@inlined
def row_bytes(bits, kb):
    """Bytes of one row block of kb tiles."""
    if is_grouped(bits):
        return group_row_bytes(bits, kb)
    if bits == INT8:
        return kb * 1024
    return (kb * 544 + 63) // 64 * 64
