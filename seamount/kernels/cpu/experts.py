"""The feed-forward of a layer: routed and shared experts in the same phases; a dense layer is a shared expert alone.

Tokens are sorted by expert into groups; a group's tokens fill tiles of their own. Each phase takes units of work that
span all groups: gate and up for the same outputs, with SiLU between; down by output columns, over all experts in
ascending order, so that a token's sum has one order and needs no scatter pass.
"""

import numpy as np

from seamount.kernels.cpu.activations import END, quantise
from seamount.kernels.cpu.compiling import inlined, inner
from seamount.kernels.cpu.packed_blocks import row_bytes
from seamount.kernels.cpu.panels import PAIR_BYTES
from seamount.kernels.cpu.products import begin_products, dequantised, pair_products, sums_place
from seamount.kernels.cpu.records import GROUP_BYTES, G, L, S, get, put
from seamount.kernels.cpu.rowwise import silu
from seamount.kernels.cpu.team import next_unit
from seamount.kernels.cpu.vector import (
    add,
    apart,
    floats,
    load_bytes,
    load_floats,
    multiply,
    read_float,
    read_int32,
    read_int64,
    store_bytes,
    store_floats,
    write_float,
    write_int64,
)

_ZERO = np.float32(0)
_CHUNK = 8  # row blocks of gate (and of up) in one unit of work
MOST_PAIRS = 4  # pairs of row blocks of down in one unit of work


@inner
def _matrix_of(group, layer, matrix, expert, width, hidden):
    """Where a group's gate, up and down begin: matrix fields are blocks, scale, bits, nb, kb."""
    apart()
    bits, nb, kb = get(matrix, 16), get(matrix, 24), get(matrix, 32)
    block = row_bytes(bits, kb)
    put(group, G.gate_up, matrix)
    put(group, G.gate, get(matrix, 0) + expert * 2 * nb * block)
    put(group, G.up, get(matrix, 0) + (expert * 2 + 1) * nb * block)
    put(group, G.gate_scale, get(matrix, 8) + expert * 2 * nb * 64)
    put(group, G.up_scale, get(matrix, 8) + (expert * 2 + 1) * nb * 64)
    put(group, G.width, width)


@inner
def _down_of(group, matrix, expert):
    apart()
    bits, nb, kb = get(matrix, 16), get(matrix, 24), get(matrix, 32)
    put(group, G.down, matrix)
    put(group, G.down_blocks, get(matrix, 0) + expert * nb * row_bytes(bits, kb))
    put(group, G.down_scale, get(matrix, 8) + expert * nb * 64)


@inlined
def _tiled(count, rows):
    return count if rows == 1 else (count + 15) // 16 * 16


@inner
def group_tokens(step, layer):
    """Sort the tokens by expert and lay out every group's buffers; one thread does it. The number of units of work."""
    apart()
    T, E, K = get(step, S.tokens), get(layer, L.experts), get(layer, L.top_k)
    D = get(step, S.hidden)
    kb = (D + 63) // 64
    rows, note_step = get(step, S.act_rows), get(step, S.note_step)
    choice, weight = get(step, S.choice), get(step, S.choice_weight)
    groups, slots, slot_weight = get(step, S.groups), get(step, S.slots), get(step, S.slot_weight)
    slot, made = 0, 0
    h, h_act = get(step, S.h), get(step, S.h_act)
    # Experts ascending: a first pass counts (in the scores' place, no longer needed), a second one fills.
    tally = get(step, S.score)
    for e in range(E):
        write_int64(tally + e * 8, 0)
    for i in range(T * K):
        e = read_int64(choice + i * 8)
        write_int64(tally + e * 8, read_int64(tally + e * 8) + 1)
    total_units = 0
    for e in range(E + 1):
        is_shared = e == E
        count = T
        width = get(layer, L.shared_width)
        if not is_shared:
            count = read_int64(tally + e * 8)
            width = get(layer, L.width)
        if count == 0 or width == 0:
            continue
        group = groups + made * GROUP_BYTES
        made += 1
        put(group, G.expert, -1 if is_shared else e)
        put(group, G.count, count)
        put(group, G.slot, slot)
        put(group, G.unit, total_units)
        if is_shared:
            _matrix_of(group, layer, layer + L.shared_gate_up, 0, width, D)
            _down_of(group, layer + L.shared_down, 0)
        else:
            _matrix_of(group, layer, layer + L.gate_up, e, width, D)
            _down_of(group, layer + L.down, e)
            write_int64(tally + e * 8, slot)
        if is_shared or T == 1:
            put(group, G.act, get(step, S.act))
            put(group, G.act_rows, rows)
            put(group, G.notes, get(step, S.act_notes))
        else:
            put(group, G.act, get(step, S.slot_act) + slot * kb * 64)
            put(group, G.act_rows, 16)
            put(group, G.notes, get(step, S.slot_notes) + slot * note_step)
        taken = _tiled(count, rows)
        put(group, G.h, h)
        put(group, G.h_rows, rows)
        put(group, G.h_act, h_act)
        put(group, G.h_notes, get(step, S.h_notes) + slot * note_step)
        padded = (width + 63) // 64 * 64
        h += taken * padded * 4
        h_act += taken * padded
        if is_shared:
            for t in range(T):
                write_int64(slots + (slot + t) * 8, t)
                write_float(slot_weight + (slot + t) * 4, np.float32(1))
        slot += taken
        nb = get(get(group, G.gate_up), 24)
        total_units += (nb + _CHUNK - 1) // _CHUNK
    for i in range(T * K):
        e = read_int64(choice + i * 8)
        place = read_int64(tally + e * 8)
        write_int64(tally + e * 8, place + 1)
        write_int64(slots + place * 8, i // K)
        write_float(slot_weight + place * 4, read_float(weight + i * 4))
    put(step, S.group_count, made)
    put(step, S.unit_count, total_units)


@inlined
def _copy_note(source, out):
    write_int64(out, read_int64(source))
    place = 8
    write_int64(out + place, read_int64(source + place))
    while read_int32(source + place) != END:
        place += 8
        write_int64(out + place, read_int64(source + place))


@inner
def gather(step):
    """Copy the routed tokens' activations into their groups' tiles: units of one group."""
    apart()
    kb = (get(step, S.hidden) + 63) // 64
    rows, act, note_step = get(step, S.act_rows), get(step, S.act), get(step, S.note_step)
    slots, groups = get(step, S.slots), get(step, S.groups)
    unit = next_unit(get(step, S.team))
    while unit < get(step, S.group_count):
        group = groups + unit * GROUP_BYTES
        if get(group, G.expert) >= 0:
            slot = get(group, G.slot)
            for i in range(get(group, G.count)):
                token = read_int64(slots + (slot + i) * 8)
                source = act + token // rows * kb * 64 * rows + token % rows * 64
                out = get(group, G.act) + i // 16 * kb * 1024 + i % 16 * 64
                for tile in range(kb):
                    store_bytes(out + tile * 1024, load_bytes(source + tile * rows * 64))
                _copy_note(get(step, S.act_notes) + token * note_step, get(group, G.notes) + i * note_step)
        unit = next_unit(get(step, S.team))


@inner
def gate_and_up(step, scratch):
    """h = silu(gate x) * up x for every group: units of `_CHUNK` row blocks of one group."""
    apart()
    groups = get(step, S.groups)
    unit = next_unit(get(step, S.team))
    number = 0
    while unit < get(step, S.unit_count):
        while number + 1 < get(step, S.group_count) and get(groups + (number + 1) * GROUP_BYTES, G.unit) <= unit:
            number += 1
        group = groups + number * GROUP_BYTES
        first = (unit - get(group, G.unit)) * _CHUNK
        last = min(first + _CHUNK, get(get(group, G.gate_up), 24))
        later = first + get(step, S.threads) * _CHUNK
        _gate_and_up_blocks(group, get(step, S.note_step), first, last, later, scratch)
        unit = next_unit(get(step, S.team))


@inner
def _gate_and_up_blocks(group, note_step, first, last, later, scratch):
    apart()
    matrix, count, rows = get(group, G.gate_up), get(group, G.count), get(group, G.act_rows)
    bits, kb = get(matrix, 16), get(matrix, 32)
    size, tiles = row_bytes(bits, kb), (count + 15) // 16
    x, notes = get(group, G.act), get(group, G.notes)
    sums = sums_place(scratch, count)
    # h stands as its tiles do: (token tile, 16 outputs, token of the tile), so that a tile is written in one piece.
    h_rows = get(group, G.h_rows)
    stride = (get(group, G.width) + 63) // 64 * h_rows * 256
    number = begin_products(bits, x, rows * 64, notes, note_step, count, kb, scratch)
    for block in range(first, last):
        following = block + 1 if block + 1 < last else later
        next_gate, next_up = np.int64(0), np.int64(0)
        if following < get(matrix, 24):
            next_gate, next_up = get(group, G.gate) + following * size, get(group, G.up) + following * size
        pair_products(
            bits, get(group, G.gate) + block * size, get(group, G.up) + block * size, kb, next_gate, next_up, x,
            rows * 64, notes, note_step, count, number, scratch,
        )  # fmt: skip
        gate_scale, up_scale = get(group, G.gate_scale) + block * 64, get(group, G.up_scale) + block * 64
        h = get(group, G.h) + block * h_rows * 64
        for tile in range(tiles):
            here, place = min(16, count - tile * 16), sums + tile * PAIR_BYTES
            for row in range(here):
                note = notes + (tile * 16 + row) * note_step
                g = dequantised(bits, place + row * 64, note, gate_scale)
                u = dequantised(bits, place + 1024 + row * 64, note, up_scale)
                store_floats(h + tile * stride + row * 64, multiply(silu(g), u))


@inner
def requantise(step):
    """h as int8, a note for each token of each group: units of a part of a token tile, or one, of a group."""
    apart()
    groups, rows, part = get(step, S.groups), get(step, S.act_rows), _part(step)
    unit = next_unit(get(step, S.team))
    number, before = 0, 0
    while True:
        while number < get(step, S.group_count) and unit - before >= _parts(groups + number * GROUP_BYTES, part):
            before += _parts(groups + number * GROUP_BYTES, part)
            number += 1
        if number == get(step, S.group_count):
            return
        group = groups + number * GROUP_BYTES
        first, width = (unit - before) * part, get(group, G.width)
        kb = (width + 63) // 64
        for row in range(first, min(get(group, G.count), first + part)):
            h = get(group, G.h) + row // rows * kb * rows * 256 + row % rows * 64
            out = get(group, G.h_act) + row // rows * kb * rows * 64 + row % rows * 64
            quantise(h, rows * 64, width, out, rows * 64, get(group, G.h_notes) + row * get(step, S.note_step))
        unit = next_unit(get(step, S.team))


@inlined
def _part(step):
    """Tokens of a unit: a tile, which stands in one piece, but not where there are hardly more tiles than threads."""
    return 16 if get(step, S.tokens) > 64 * get(step, S.threads) else 4


@inlined
def _parts(group, part):
    return (get(group, G.count) + part - 1) // part


@inlined
def _pairs_of_a_unit(step):
    """Pairs of row blocks that `down` takes at once, so that activations come from the second-level cache for all but
    the first; fewer where threads would be left without work."""
    pairs = (get(step, S.hidden) + 31) // 32
    return max(1, min(MOST_PAIRS, pairs // (8 * get(step, S.threads))))


@inner
def down(step, scratch):
    """x += sum over groups of weight * down h: units of a few pairs of row blocks, all groups in turn."""
    apart()
    T, nb = get(step, S.tokens), (get(step, S.hidden) + 15) // 16
    chunk = _pairs_of_a_unit(step)
    unit = next_unit(get(step, S.team))
    while unit * chunk * 2 < nb:
        begin, end = unit * chunk * 2, min(nb, (unit + 1) * chunk * 2)
        stride = (end - begin) * 64
        for i in range(0, T * stride, 64):
            store_floats(scratch + i, floats(_ZERO))
        for number in range(get(step, S.group_count)):
            _down_blocks(step, number, begin, end, scratch, scratch + MOST_PAIRS * T * 128)
        for token in range(T):
            x = get(step, S.x) + token * get(step, S.x_stride) + begin * 64
            for i in range(0, stride, 64):
                store_floats(x + i, add(load_floats(x + i), load_floats(scratch + token * stride + i)))
        unit = next_unit(get(step, S.team))


@inner
def _down_blocks(step, number, begin, end, total, scratch):
    """One group's part in the outputs of row blocks begin .. end - 1."""
    apart()
    group, rows, note_step = get(step, S.groups) + number * GROUP_BYTES, get(step, S.act_rows), get(step, S.note_step)
    matrix, count, notes = get(group, G.down), get(group, G.count), get(group, G.h_notes)
    bits, kb = get(matrix, 16), get(matrix, 32)
    size, x, sums = row_bytes(bits, kb), get(group, G.h_act), sums_place(scratch, count)
    # Behind the last of these blocks come the next expert's, or those of the first expert in a later unit.
    other, later = group + GROUP_BYTES, begin
    if number + 1 == get(step, S.group_count):
        other, later = get(step, S.groups), begin + (end - begin) * get(step, S.threads)
    large = begin_products(bits, x, rows * 64, notes, note_step, count, kb, scratch)
    for first in range(begin, end, 2):
        second = min(first + 1, end - 1)
        a, b = get(group, G.down_blocks) + first * size, get(group, G.down_blocks) + second * size
        next_a, next_b = a + 2 * size, b + 2 * size
        if first + 2 >= end:
            next_a, next_b = np.int64(0), np.int64(0)
            of = get(other, G.down)
            if later < get(of, 24):
                step_bytes = row_bytes(get(of, 16), get(of, 32))
                next_a = get(other, G.down_blocks) + later * step_bytes
                next_b = next_a + step_bytes
        pair_products(bits, a, b, kb, next_a, next_b, x, rows * 64, notes, note_step, count, large, scratch)
        for tile in range(0, count, 16):
            here = min(16, count - tile)
            out = total + (first - begin) * 64
            _add_weighted(
                step, group, tile, here, first, second, out, (end - begin) * 64, sums + tile // 16 * PAIR_BYTES
            )


@inlined
def _add_weighted(step, group, begin, here, first, second, total, stride, sums):
    slots, slot_weight, slot = get(step, S.slots), get(step, S.slot_weight), get(group, G.slot)
    bits = get(get(group, G.down), 16)
    a_scale, b_scale = get(group, G.down_scale) + first * 64, get(group, G.down_scale) + second * 64
    for row in range(here):
        place = begin + row
        note = get(group, G.h_notes) + place * get(step, S.note_step)
        out = total + read_int64(slots + (slot + place) * 8) * stride
        weight = floats(read_float(slot_weight + (slot + place) * 4))
        y = multiply(dequantised(bits, sums + row * 64, note, a_scale), weight)
        store_floats(out, add(load_floats(out), y))
        if second != first:
            y = multiply(dequantised(bits, sums + 1024 + row * 64, note, b_scale), weight)
            store_floats(out + 64, add(load_floats(out + 64), y))
