"""A step's attention: which queries go through which rows together, and what becomes of the results."""

import numpy as np

from seamount.kernels.cpu import attention
from seamount.kernels.cpu.activations import quantise
from seamount.kernels.cpu.compiling import inlined, inner
from seamount.kernels.cpu.mixing import dense_row, padded_tokens, quantise_row
from seamount.kernels.cpu.records import L, S, get, get_float
from seamount.kernels.cpu.team import next_unit
from seamount.kernels.cpu.vector import (
    apart,
    read_float,
    read_int64,
    write_float,
    write_int32,
)

SPLIT_UNITS = 4  # units per thread below which attention is also split by segment
SHORT = 128  # rows up to which one thread alone attends sooner than several that wait for each other


@inlined
def _column_groups(layer):
    """Column groups of one token: of each key-value head, its query heads by sixteens."""
    per_group = get(layer, L.heads) // get(layer, L.groups)
    return get(layer, L.groups) * ((per_group + 15) // 16)


@inlined
def _heads_of(layer, part):
    """The key-value head, the first query head and the number of query heads of one of a token's column groups."""
    per_group = get(layer, L.heads) // get(layer, L.groups)
    pieces = (per_group + 15) // 16
    return part // pieces, part // pieces * per_group + part % pieces * 16, min(16, per_group - part % pieces * 16)


@inlined
def _tokens_of_group(layer):
    """Tokens whose queries fill the columns of one group."""
    return max(1, attention.COLUMNS // (get(layer, L.heads) // get(layer, L.groups)))


@inlined
def _rows_seen(step, token):
    return read_int64(get(step, S.position) + token * 8) + 1


@inner
def _prepare_queries(step, layer, start, tokens, head, heads, limits, queries, scratch):
    """The columns of one group: how many rows each sees, and its query where tiles expect it."""
    apart()
    for column in range(16):
        limit = 0
        if column < tokens * heads:
            limit = _rows_seen(step, start + column // heads)
        write_int32(limits + column * 4, np.int32(limit))
    q_dim, H = get(step, S.q_dim), get(layer, L.heads)
    q = get(step, S.q) + (start * H + head) * q_dim * 2
    attention.pack_queries(q, tokens * heads, heads, H * q_dim * 2, q_dim * 2, q_dim, scratch, queries)


@inner
def _attend_block(step, layer, number, unit, segments, is_split, scratch):
    """One block by one of each token's column groups: all its segments, or one where they are split.

    A block's tokens fill at most MOST_GROUPS groups, as `scratch` has room for; where they are split, one.
    """
    apart()
    parts, size, q_dim = _column_groups(layer), attention.state_bytes(get(layer, L.value_dim)), get(step, S.q_dim)
    block = get(step, S.blocks) + unit // segments // parts * 24
    start, tokens, sequence = read_int64(block), read_int64(block + 8), read_int64(block + 16)
    group, head, heads = _heads_of(layer, unit // segments % parts)
    together = _tokens_of_group(layer)
    groups = (tokens + together - 1) // together
    limits = scratch
    queries = limits + groups * 64
    states = queries + groups * q_dim * 32
    newer = states + groups * size
    space = newer + groups * size
    for i in range(groups):
        first, count = start + i * together, min(together, tokens - i * together)
        _prepare_queries(step, layer, first, count, head, heads, limits + i * 64, queries + i * q_dim * 32, space)
    last = _rows_seen(step, start + tokens - 1)
    first_piece, last_piece = 0, (last + attention.SEGMENT - 1) // attention.SEGMENT
    if is_split:
        states = get(step, S.states) + unit * size
        first_piece = unit % segments
        last_piece = min(last_piece, first_piece + 1)
    base = read_int64(get(step, S.bases) + number * 8)
    pages = get(step, S.pages) + sequence * get(step, S.table_width) * 8
    key_at, value_at = _offsets(layer, group)
    for piece in range(first_piece, last_piece):
        begin = piece * attention.SEGMENT
        attention.segment(
            base, pages, get(layer, L.page_bytes), get(layer, L.row_bytes), key_at, get(layer, L.key_dim), value_at,
            get(layer, L.value_dim), begin, min(last, begin + attention.SEGMENT), groups, limits,
            get_float(layer, L.scale), queries, q_dim * 32, states if piece == first_piece else newer, size, space,
            get(layer, L.compressed), get(layer, L.row_group),
        )  # fmt: skip
        for i in range(groups):
            if piece > first_piece and _rows_seen(step, start + min(tokens, (i + 1) * together) - 1) > begin:
                attention.fold(states + i * size, newer + i * size, get(layer, L.value_dim))
    if not is_split:
        for i in range(groups):
            first, count = start + i * together, min(together, tokens - i * together)
            _finish(step, layer, states + i * size, first, count, head, heads, space)


@inner
def attend(step, layer, number, is_split, scratch):
    """Attention of every block of tokens and column group: units of those, and of one segment each where split."""
    apart()
    segments = most_segments(step) if is_split else 1
    units = get(step, S.block_count) * _column_groups(layer) * segments
    unit = next_unit(get(step, S.team))
    while unit < units:
        # Backwards: a prompt's last tokens see the most rows, and threads end together where small units end.
        _attend_block(step, layer, number, units - 1 - unit, segments, is_split, scratch)
        unit = next_unit(get(step, S.team))


@inner
def rows_and_values(step, layer, number, scratch):
    """Of a GQA layer the cache's new rows, attention, and its results as int8: units of one token, which is alone.

    That is, it is its sequence's only one; then nothing but the token itself waits for its row.
    """
    apart()
    token = next_unit(get(step, S.team))
    while token < get(step, S.tokens):
        dense_row(step, layer, number, token, scratch)
        for group in range(0, get(layer, L.groups), get(layer, L.beside)):
            _attend_alone(step, layer, number, token, group, scratch)
        y = get(step, S.y) + token * get(step, S.y_stride)
        quantise_row(step, y, get(layer, L.heads) * get(layer, L.value_dim), token)
        token = next_unit(get(step, S.team))


@inner
def _attend_alone(step, layer, number, token, group, scratch):
    """One token by some key-value heads, whose query heads fill a column group together.

    Rows hold their numbers side by side, as if of one wide head. A query is zero where another head's numbers are, and
    of its outputs only its own head's are taken; so the bits are those of one head at a time.
    """
    apart()
    beside, dim, per_group = get(layer, L.beside), get(layer, L.key_dim), get(layer, L.heads) // get(layer, L.groups)
    width, columns, last = beside * dim, beside * per_group, _rows_seen(step, token)
    size = attention.state_bytes(width)
    queries = scratch + 64
    states = queries + width * 32
    space = states + 2 * size
    for column in range(16):
        write_int32(scratch + column * 4, np.int32(last if column < columns else 0))
    q = get(step, S.q) + (token * get(layer, L.heads) + group * per_group) * get(step, S.q_dim) * 2
    attention.pack_beside(q, columns, per_group, get(step, S.q_dim) * 2, dim, width, space, queries)
    pages = get(step, S.pages) + read_int64(get(step, S.sequence) + token * 8) * get(step, S.table_width) * 8
    key_at, value_at = _offsets(layer, group)
    for begin in range(0, last, attention.SEGMENT):
        attention.segment(
            read_int64(get(step, S.bases) + number * 8), pages, get(layer, L.page_bytes), get(layer, L.row_bytes),
            key_at, width, value_at, width, begin, min(last, begin + attention.SEGMENT), 1, scratch,
            get_float(layer, L.scale), queries, 0, states if begin == 0 else states + size, size, space,
            get(layer, L.compressed), get(layer, L.row_group),
        )  # fmt: skip
        if begin > 0:
            attention.fold(states, states + size, width)
    y = get(step, S.y) + token * get(step, S.y_stride) + group * per_group * dim * 4
    for column in range(columns):
        attention.finish(states, width, column, column // per_group * dim, dim, y + column * dim * 4)


@inlined
def _offsets(layer, group):
    """Where the key and the value begin in a row, in bytes: a latent row is both."""
    if get(layer, L.is_latent):
        return 0, 0
    width = get(layer, L.key_dim) * 2
    return group * width, (get(layer, L.groups) + group) * width


@inner
def most_segments(step):
    """Segments of the longest sequence in the batch."""
    apart()
    longest = 0
    for token in range(get(step, S.tokens)):
        longest = max(longest, read_int64(get(step, S.position) + token * 8) + 1)
    return (longest + attention.SEGMENT - 1) // attention.SEGMENT


@inner
def is_worth_splitting(step, layer):
    """Whether there are too few units of whole sequences for the threads, and segments to split them by.

    Blocks that fill more than one column group are made only where units are many, and are never split.
    """
    apart()
    if get(step, S.block_count) * _column_groups(layer) >= SPLIT_UNITS * get(step, S.threads):
        return False
    for block in range(get(step, S.block_count)):
        if read_int64(get(step, S.blocks) + block * 24 + 8) > _tokens_of_group(layer):
            return False
    return most_segments(step) > 1


@inner
def join_segments(step, layer, scratch):
    """Fold what `attend` left of split units: units of one block and column group."""
    apart()
    parts = _column_groups(layer)
    segments, size = most_segments(step), attention.state_bytes(get(layer, L.value_dim))
    unit = next_unit(get(step, S.team))
    while unit < get(step, S.block_count) * parts:
        block = get(step, S.blocks) + unit // parts * 24
        start, tokens = read_int64(block), read_int64(block + 8)
        last = _rows_seen(step, start + tokens - 1)
        state = get(step, S.states) + unit * segments * size
        for i in range(1, (last + attention.SEGMENT - 1) // attention.SEGMENT):
            attention.fold(state, state + i * size, get(layer, L.value_dim))
        _, head, heads = _heads_of(layer, unit % parts)
        _finish(step, layer, state, start, tokens, head, heads, scratch)
        unit = next_unit(get(step, S.team))


@inner
def _finish(step, layer, state, start, tokens, head, heads, scratch):
    """The columns' results: int8 per head for a latent layer, else into y."""
    apart()
    dim, rows, padded = get(layer, L.value_dim), get(step, S.act_rows), padded_tokens(step)
    kb = (dim + 63) // 64
    for column in range(tokens * heads):
        token, h = start + column // heads, head + column % heads
        if get(layer, L.is_latent):
            attention.finish(state, dim, column, 0, dim, scratch)
            place = h * padded + token
            out = get(step, S.head_act) + h * padded * kb * 64 + token // rows * rows * kb * 64 + token % rows * 64
            quantise(scratch, 64, dim, out, rows * 64, get(step, S.head_notes) + place * get(step, S.head_note_step))
        else:
            attention.finish(state, dim, column, 0, dim, scratch)
            y = get(step, S.y) + token * get(step, S.y_stride) + h * dim * 4
            for i in range(dim):
                write_float(y + i * 4, read_float(scratch + i * 4))
