"""Products with packed weights: int8 activations, exact integer sums, one float scale per token and per output row.

A unit of work is two row blocks (32 outputs) by all tokens. Up to four tokens multiply the packed bytes as they stream
by (few_tokens.py), more share one unpacking (panels.py). The sums are integers, so every way gives the same bits.

An activation buffer holds tiles of `rows` tokens (1 or 16): code (token r, input k) of a tile stands at
`(k // 64) * rows * 64 + r * 64 + k % 64`, and every token has a note (see activations.py). The weights' bytes are
biased by 128, so 128 times the sum of a token's codes is taken off again.
"""

import numpy as np

from seamount.kernels.cpu.compiling import inlined, inner
from seamount.kernels.cpu.few_tokens import FEW, few_products
from seamount.kernels.cpu.group_products import group_pair_sums, group_starts, is_grouped
from seamount.kernels.cpu.panels import LISTED_BYTES, PAIR_BYTES, PANEL_BYTES, list_quads, pair_sums
from seamount.kernels.cpu.vector import (
    add_ints,
    apart,
    floats,
    ints,
    load_floats,
    load_ints,
    multiply,
    read_float,
    read_int32,
    to_floats,
)


@inlined
def product_bytes(count):
    """Scratch that products of so many tokens need: a panel, the list of large quads, and the sums."""
    return PANEL_BYTES + (count * LISTED_BYTES + 63) // 64 * 64 + (count + 15) // 16 * PAIR_BYTES


@inlined
def sums_place(scratch, count):
    """Where the sums stand in that scratch; the panel stands at its beginning, the list behind the panel."""
    return scratch + PANEL_BYTES + (count * LISTED_BYTES + 63) // 64 * 64


@inlined
def starts_place(scratch, count):
    """Where, behind that scratch, what `group_starts` writes stands, for formats with scales of groups."""
    return scratch + product_bytes(count)


@inner
def begin_products(bits, x, step, notes, note_step, count, kb, scratch):
    """What `pair_products` needs to know of these activations: into scratch, and a number to hand on to it."""
    apart()
    if is_grouped(bits):
        group_starts(bits, x, step, count, kb, starts_place(scratch, count))
    elif count > FEW:
        return list_quads(notes, note_step, count, scratch + PANEL_BYTES)
    return 0


@inner
def pair_products(bits, a, b, kb, next_a, next_b, x, step, notes, note_step, count, number, scratch):
    """All tokens by two row blocks (or one, twice): sums (token tiles, 2, 16, 16) at `sums_place`.

    next_a, next_b: the row blocks that this thread will probably read next, 0 for none.
    """
    apart()
    sums = sums_place(scratch, count)
    if is_grouped(bits):
        starts = starts_place(scratch, count)
        group_pair_sums(bits, a, b, x, step, notes, note_step, count, kb, starts, sums, PAIR_BYTES)
    elif count <= FEW:
        few_products(bits, a, b, next_a, next_b, x, step, notes, note_step, count, kb, sums)
    else:
        listed = scratch + PANEL_BYTES
        pair_sums(bits, a, b, kb, next_a, next_b, x, count, listed, number, sums, scratch)


@inlined
def dequantised(bits, sums, note, row_scale):
    """16 outputs of one token from their integer sums: `(sum - bias) * scale * row_scale`, in that order.

    Sums over groups with scales are floats, and `sum * scale` is the output.
    """
    if is_grouped(bits):
        return multiply(load_floats(sums), floats(read_float(note)))
    exact = add_ints(load_ints(sums), ints(np.int32(-read_int32(note + 4))))
    return multiply(multiply(to_floats(exact), floats(read_float(note))), load_floats(row_scale))
