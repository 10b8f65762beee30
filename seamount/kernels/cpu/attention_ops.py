"""Attention as single operations, float32 and bfloat16: over the pages of several sequences, or rows in one piece.

bfloat16 is attention.py's arithmetic. float32 has its structure: pages of 64 rows folded one by one, segments of 512
rows folded in order; scores as float32.py adds them, outputs by one chain of fused multiply-adds over a page's rows.
A query's result depends on its own rows alone, however many queries share the work.
"""

from itertools import chain

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional as F

from seamount.kernels.cpu import attention, float32
from seamount.kernels.cpu.attention import COLUMNS, SEGMENT, begin, finish, fold, pack_queries
from seamount.kernels.cpu.bfloat16 import CONFIGURATIONS
from seamount.kernels.cpu.cached_rows import Places, in_one_piece, in_pages
from seamount.kernels.cpu.compressed_rows import decode
from seamount.kernels.cpu.dense import counters, next_unit
from seamount.kernels.cpu.launch import all_workers, argument, launch
from seamount.kernels.cpu.partial import load_part, load_some_floats, store_part
from seamount.kernels.cpu.rowwise import exp
from seamount.kernels.cpu.tiles import configure_tiles, release_tiles
from seamount.kernels.cpu.vector import (
    add,
    bits_to_float,
    floats,
    fma,
    keep_lanes,
    larger,
    load_floats,
    max_lanes,
    multiply,
    read_float,
    read_int64,
    store_floats,
    subtract,
    sum_lanes,
    write_float,
    write_int32,
)
from seamount.kernels.paged import PAGE, PagedRows

_LOW, _ZERO = np.float32(-1e30), np.float32(0)
# Fewer units than this for each worker, and the rows are divided among the workers too.
_SPLIT_UNITS = 4
_ALL = 1 << 40  # more segments than a sequence has

# The arguments of the kernel, in order.
(
    IS_BFLOAT16, Q, OUT, HEADS, GROUPS, KEY_DIM, QUERY_DIM, VALUE_DIM, BASE, PAGE_BYTES, ROW_BYTES, VALUE_AT,
    KEY_STEP, VALUE_STEP, SCALE, TABLE, TABLE_STEP, UNITS, CONFIGURATION, COUNTERS, STATES, STATE_BYTES, SEGMENTS,
    COMPRESSED, ROW_GROUP, SEQUENCES,
) = range(26)  # fmt: skip
# From SEQUENCES on: of each sequence its tokens and its rows.


@njit
def _fold_page(scores, seen, scale, state, column, values, row_bytes, value_dim):
    """Fold the first `seen` rows of a page into one column of a state."""
    old = read_float(state + column * 4)
    best = floats(old)
    for i in range(0, seen, 16):
        v = multiply(load_some_floats(scores + i * 4, seen - i), floats(scale))
        v = keep_lanes(v, seen - i, _LOW)
        store_floats(scores + i * 4, v)
        best = larger(v, best)
    most = max_lanes(best)
    total = floats(_ZERO)
    for i in range(0, seen, 16):
        v = keep_lanes(exp(subtract(load_floats(scores + i * 4), floats(most))), seen - i, _ZERO)
        store_floats(scores + i * 4, v)
        total = add(total, v)
    factor = exp(subtract(floats(old), floats(most)))
    write_float(state + column * 4, most)
    place = state + 64 + column * 4
    write_float(place, read_float(place) * max_lanes(factor) + sum_lanes(total))
    width = (value_dim + 15) // 16 * 16
    out = state + 128 + column * width * 4
    for i in range(0, value_dim, 16):
        v = multiply(load_floats(out + i * 4), factor)
        for row in range(seen):
            v = fma(floats(read_float(scores + row * 4)), load_part(values + row * row_bytes, i, value_dim, False), v)
        store_floats(out + i * 4, v)


@njit
def _segment(arguments, group, pages, first, last, seen, heads, columns, queries, state, scratch):
    """Fold the rows first .. last - 1 into float32 columns: column j sees `seen + j // heads` rows."""
    row_bytes, scale = argument(arguments, ROW_BYTES), bits_to_float(argument(arguments, SCALE))
    key_dim, value_dim = argument(arguments, KEY_DIM), argument(arguments, VALUE_DIM)
    compressed, row_group = argument(arguments, COMPRESSED), argument(arguments, ROW_GROUP)
    key_at = group * argument(arguments, KEY_STEP)
    value_at = argument(arguments, VALUE_AT) + group * argument(arguments, VALUE_STEP)
    copy, stride = scratch + COLUMNS * PAGE * 4, row_bytes
    for page in range(first // PAGE, (last + PAGE - 1) // PAGE):
        rows = min(PAGE, last - page * PAGE)
        place = argument(arguments, BASE) + read_int64(pages + page * 8) * argument(arguments, PAGE_BYTES)
        keys, values = place + key_at, place + value_at
        if compressed != 0:
            keys, values, stride = copy, copy, (max(key_dim, value_dim) + 15) // 16 * 64
            decode(place, row_bytes, rows, key_at // 4, key_dim, compressed, row_group, False, keys, stride, place)
            if value_at != key_at:
                values = copy + PAGE * stride
                decode(
                    place, row_bytes, rows, value_at // 4, value_dim, compressed, row_group, False, values, stride,
                    place,
                )  # fmt: skip
        float32.products(queries, key_dim * 4, columns, keys, stride, rows, key_dim, scratch, PAGE * 4)
        for column in range(columns):
            here = min(rows, seen + column // heads - page * PAGE)
            if here > 0:
                scores = scratch + column * PAGE * 4
                _fold_page(scores, here, scale, state, column, values, stride, value_dim)


@njit
def _unit(arguments, unit):
    """A unit is up to 16 queries that read the same keys: some heads of a sequence's next few tokens.

    First token, tokens, key-value head, first head, heads, rows that the first token sees, address of page numbers.
    """
    per_group = argument(arguments, HEADS) // argument(arguments, GROUPS)
    pieces, together = (per_group + COLUMNS - 1) // COLUMNS, max(1, COLUMNS // per_group)
    parts = argument(arguments, GROUPS) * pieces
    token, number, length = 0, 0, argument(arguments, SEQUENCES)
    while unit >= (length + together - 1) // together * parts:
        unit -= (length + together - 1) // together * parts
        token += length
        number += 1
        length = argument(arguments, SEQUENCES + 2 * number)
    start, group, piece = unit // parts * together, unit % parts // pieces, unit % pieces
    return (
        token + start,
        min(together, length - start),
        group,
        group * per_group + piece * COLUMNS,
        min(COLUMNS, per_group - piece * COLUMNS),
        argument(arguments, SEQUENCES + 2 * number + 1) - length + start + 1,
        argument(arguments, TABLE) + number * argument(arguments, TABLE_STEP),
    )


@njit
def _attend(arguments, unit, first_segment, last_segment, state, scratch):
    """Fold some segments of a unit's rows into `state`; behind it there is room for another."""
    start, tokens, group, head, heads, seen, pages = _unit(arguments, unit)
    is_bfloat16, dim = argument(arguments, IS_BFLOAT16) != 0, argument(arguments, QUERY_DIM)
    size = dim * (2 if is_bfloat16 else 4)
    head_count, columns = argument(arguments, HEADS), tokens * heads
    q = argument(arguments, Q) + (start * head_count + head) * size
    row, value_dim = argument(arguments, ROW_BYTES), argument(arguments, VALUE_DIM)
    rows = seen + tokens - 1
    limits, queries = scratch, scratch + 64
    space = queries + COLUMNS * size
    if is_bfloat16:
        for column in range(COLUMNS):
            limit = seen + column // heads if column < columns else 0
            write_int32(limits + column * 4, np.int32(limit))
        pack_queries(q, columns, heads, head_count * size, size, dim, space, queries)
    else:
        for column in range(columns):
            place = q + (column // heads * head_count + column % heads) * size
            for i in range(0, dim, 16):
                store_part(queries + column * size, i, dim, False, load_part(place, i, dim, False))
    newer = state + argument(arguments, STATE_BYTES)
    for segment in range(first_segment, min(last_segment, (rows + SEGMENT - 1) // SEGMENT)):
        place = state if segment == first_segment else newer
        first, last = segment * SEGMENT, min(rows, (segment + 1) * SEGMENT)
        if is_bfloat16:
            attention.segment(
                argument(arguments, BASE), pages, argument(arguments, PAGE_BYTES), row,
                group * argument(arguments, KEY_STEP), argument(arguments, KEY_DIM),
                argument(arguments, VALUE_AT) + group * argument(arguments, VALUE_STEP), value_dim, first, last,
                1, limits, bits_to_float(argument(arguments, SCALE)), queries, 0, place, 0, space,
                argument(arguments, COMPRESSED), argument(arguments, ROW_GROUP),
            )  # fmt: skip
        else:
            begin(place, value_dim)
            _segment(arguments, group, pages, first, last, seen, heads, columns, queries, place, space)
        if segment > first_segment:
            fold(state, place, value_dim)


@njit
def _finish(arguments, unit, state, scratch):
    start, tokens, _, head, heads, _, _ = _unit(arguments, unit)
    is_bfloat16, dim = argument(arguments, IS_BFLOAT16) != 0, argument(arguments, VALUE_DIM)
    for column in range(tokens * heads):
        finish(state, dim, column, 0, dim, scratch)
        query = (start + column // heads) * argument(arguments, HEADS) + head + column % heads
        out = argument(arguments, OUT) + query * dim * (2 if is_bfloat16 else 4)
        for i in range(0, dim, 16):
            store_part(out, i, dim, is_bfloat16, load_floats(scratch + i * 4))


def _attention(arguments, phase, worker, workers):
    """Units of queries; where rows are divided too, phase 0 takes units of one segment and phase 1 folds them."""
    segments, size = argument(arguments, SEGMENTS), argument(arguments, STATE_BYTES)
    key_dim, value_dim = argument(arguments, KEY_DIM), argument(arguments, VALUE_DIM)
    need = attention.scratch_bytes(key_dim, value_dim) + 2 * size + argument(arguments, QUERY_DIM) * 64 + 8192
    if argument(arguments, COMPRESSED) != 0:
        need += 2 * PAGE * (max(key_dim, value_dim) + 15) * 4  # decoded keys and values
    memory = np.empty(need, np.uint8)
    state = np.int64(memory.ctypes.data)
    scratch = state + 2 * size
    counter = argument(arguments, COUNTERS) + phase * 64
    is_bfloat16, is_split, units = argument(arguments, IS_BFLOAT16) != 0, segments > 0, argument(arguments, UNITS)
    if is_bfloat16:
        configure_tiles(argument(arguments, CONFIGURATION))
    count = units * segments if is_split and phase == 0 else units
    unit = worker
    while unit < count:
        if not is_split:
            # Backwards: a prompt's last tokens see the most rows, and workers end together where small units end.
            _attend(arguments, units - 1 - unit, 0, _ALL, state, scratch)
            _finish(arguments, units - 1 - unit, state, scratch)
        elif phase == 0:
            first = unit % segments
            _attend(arguments, unit // segments, first, first + 1, argument(arguments, STATES) + unit * size, scratch)
        else:
            states = argument(arguments, STATES) + unit * segments * size
            _, tokens, _, _, _, seen, _ = _unit(arguments, unit)
            for segment in range(1, (seen + tokens - 1 + SEGMENT - 1) // SEGMENT):
                fold(states, states + segment * size, value_dim)
            _finish(arguments, unit, states, scratch)
        unit = next_unit(counter)
    if is_bfloat16:
        release_tiles()
    memory[0] = 0  # whatever was read through the address, the memory lives until here


def _attended(
    q_THN: Tensor, rows: Places, value_at: int, steps: tuple[int, int], value_dim: int, G: int, scale: float
) -> Tensor:
    """(T, H, N) -> (T, H, value_dim): all queries over their rows. Bytes: `value_at`, `steps` (key's and value's)."""
    T, H, N = q_THN.shape
    sequences = tuple(zip(rows.lengths, rows.counts, strict=True))
    assert sum(rows.lengths) == T, f"sequences of {rows.lengths} tokens do not make {T} queries"
    assert all(0 < length <= count for length, count in sequences), f"new tokens are the last rows: {sequences}"
    assert H % G == 0, f"{H} heads share {G} key-value heads"
    is_bfloat16 = q_THN.dtype is torch.bfloat16
    out = torch.empty(T, H, value_dim, dtype=q_THN.dtype)
    # Tiles read 32 numbers at a time.
    q_THN = F.pad(q_THN, (0, -N % 32)) if is_bfloat16 and N % 32 else q_THN.contiguous()
    per_group, segments, workers = H // G, -(-max(rows.counts) // SEGMENT), all_workers()
    together, parts = max(1, COLUMNS // per_group), G * -(-per_group // COLUMNS)
    units = sum(-(-length // together) for length in rows.lengths) * parts
    is_split = segments > 1 and units < _SPLIT_UNITS * workers
    work = sum(-(-length // together) * count for length, count in sequences) * parts * N
    if work < 1 << 14 or units * (segments if is_split else 1) == 1:
        workers, is_split = 1, False
    state_bytes = 128 + COLUMNS * ((value_dim + 15) // 16 * 16) * 4
    states = torch.empty(units * segments * state_bytes if is_split else 0, dtype=torch.uint8)
    taken = counters(2, workers)
    arguments = (
        is_bfloat16, q_THN.data_ptr(), out.data_ptr(), H, G, N, q_THN.shape[-1], value_dim, rows.base, rows.page_bytes,
        rows.row_bytes, value_at, *steps, int(np.float32(scale).view(np.int32)), rows.table_BN.data_ptr(),
        rows.table_BN.shape[1] * 8, units, CONFIGURATIONS.data_ptr() + 64 * COLUMNS, taken.data_ptr(),
        states.data_ptr(), state_bytes, segments if is_split else 0, rows.compressed, rows.row_group,
        *chain.from_iterable(sequences),
    )  # fmt: skip
    launch(_attention, arguments, phases=2 if is_split else 1, workers=workers)
    return out


def causal_attention(q_THN: Tensor, k_SGN: Tensor, v_SGN: Tensor, scale: float) -> Tensor:
    """See reference.causal_attention: float32 or bfloat16, all of one dtype, on the CPU.

    Cost: 4 T H S N operations; each row is read once for all heads that share it.
    """
    G, size = k_SGN.shape[1], k_SGN.element_size()
    strides = [(tensor.stride(0), tensor.stride(2)) for tensor in (k_SGN, v_SGN)]
    if strides[0] != strides[1] or strides[0][1] != 1:
        both_SX = torch.cat((k_SGN.flatten(1), v_SGN.flatten(1)), dim=1)
        k_SX, v_SX = both_SX.split((k_SGN[0].numel(), v_SGN[0].numel()), dim=1)
        k_SGN, v_SGN = k_SX.unflatten(1, (G, -1)), v_SX.unflatten(1, (G, -1))
    steps = k_SGN.stride(1) * size, v_SGN.stride(1) * size
    rows = in_one_piece(k_SGN, q_THN.shape[0])
    return _attended(q_THN, rows, v_SGN.data_ptr() - k_SGN.data_ptr(), steps, v_SGN.shape[-1], G, scale)


def latent_attention(q_THQ: Tensor, rows_SQ: Tensor, latent_dim: int, scale: float) -> Tensor:
    """See reference.latent_attention: float32 or bfloat16, both of one dtype, on the CPU."""
    rows_SQ = rows_SQ if rows_SQ.stride(1) == 1 else rows_SQ.contiguous()
    return _attended(q_THQ, in_one_piece(rows_SQ, q_THQ.shape[0]), 0, (0, 0), latent_dim, 1, scale)


def paged_causal_attention(q_THN: Tensor, rows: PagedRows, groups: int, scale: float) -> Tensor:
    """See reference.paged_causal_attention. Equals: causal_attention of each sequence's rows, bit for bit.

    Cost: one launch for the batch.
    """
    N = q_THN.shape[2]
    assert rows.dim == 2 * groups * N, "a row is the keys and the values of its heads"
    step = N * q_THN.element_size()
    return _attended(q_THN, in_pages(rows), groups * step, (step, step), N, groups, scale)


def paged_latent_attention(q_THQ: Tensor, rows: PagedRows, latent_dim: int, scale: float) -> Tensor:
    """See reference.paged_latent_attention. Equals: latent_attention of each sequence's rows, bit for bit."""
    assert rows.dim == q_THQ.shape[2] >= latent_dim, "a query is as long as a row"
    return _attended(q_THQ, in_pages(rows), 0, (0, 0), latent_dim, 1, scale)
