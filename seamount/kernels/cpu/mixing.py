"""The attention half of a layer: projections, rotation, the cache's new rows, attention, and the way back.

MLA in its absorbed form: queries are carried into the latent space head by head (`w_uk`), attend there to the cached
rows, and the results are carried out (`w_uv`). Source: DeepSeek-V2, arXiv 2405.04434, section 2.1 and appendix C.
"""

import numpy as np

from seamount.kernels.cpu import attention
from seamount.kernels.cpu.activations import quantise
from seamount.kernels.cpu.compiling import inlined, inner
from seamount.kernels.cpu.compressed_rows import encode
from seamount.kernels.cpu.group_products import group_pair_sums, group_starts, is_grouped
from seamount.kernels.cpu.products import (
    FEW,
    PAIR_BYTES,
    PANEL_BYTES,
    dequantised,
    few_products,
    list_quads,
    pair_sums,
    row_bytes,
    starts_place,
    sums_place,
)
from seamount.kernels.cpu.records import L, S, get, get_float
from seamount.kernels.cpu.rowwise import norm, rotate
from seamount.kernels.cpu.team import next_unit
from seamount.kernels.cpu.vector import (
    add,
    apart,
    half_bits,
    load_floats,
    prefetch,
    read_float,
    read_int64,
    store_bfloat16,
    store_floats,
    write_float,
    write_half,
    write_int32,
)

STORE, ADD, STORE_BFLOAT16 = 0, 1, 2
SPLIT_UNITS = 4  # units per thread below which attention is also split by segment


@inner
def norm_rows(step, weight, eps):
    """z = norm(x), and z as int8: units of one token."""
    apart()
    D, rows = get(step, S.hidden), get(step, S.act_rows)
    kb = (D + 63) // 64
    token = next_unit(get(step, S.team))
    while token < get(step, S.tokens):
        z = get(step, S.z) + token * get(step, S.z_stride)
        norm(get(step, S.x) + token * get(step, S.x_stride), weight, D, eps, z)
        out = get(step, S.act) + token // rows * kb * rows * 64 + token % rows * 64
        quantise(z, 64, D, out, rows * 64, get(step, S.act_notes) + token * get(step, S.note_step))
        token = next_unit(get(step, S.team))


@inner
def quantise_rows(step, source, stride, count, weight, eps):
    """Rows of float32 as the step's int8 activations, normed first where there is a weight: units of one token."""
    apart()
    rows = get(step, S.act_rows)
    kb = (count + 63) // 64
    token = next_unit(get(step, S.team))
    while token < get(step, S.tokens):
        row = source + token * stride
        if weight != 0:
            norm(row, weight, count, eps, row)
        out = get(step, S.act) + token // rows * kb * rows * 64 + token % rows * 64
        quantise(row, 64, count, out, rows * 64, get(step, S.act_notes) + token * get(step, S.note_step))
        token = next_unit(get(step, S.team))


@inner
def products(
    bits, blocks, scales, nb, kb, begin, end, count, act, rows, notes, note_step, out, stride, bias, mode, scratch
):
    """All tokens by the row blocks `2 begin` to `2 end` of one matrix; stored, added, or stored as bfloat16."""
    apart()
    size, tiles = row_bytes(bits, kb), (count + 15) // 16
    panel, listed, sums, number = scratch, scratch + PANEL_BYTES, sums_place(scratch, count), 0
    starts = starts_place(scratch, count)
    if is_grouped(bits):
        group_starts(bits, act, rows * 64, count, kb, starts)
    elif count > FEW:
        number = list_quads(notes, note_step, count, listed)
    for pair in range(begin, end):
        first = pair * 2
        second = min(first + 1, nb - 1)
        a, b = blocks + first * size, blocks + second * size
        if is_grouped(bits):
            group_pair_sums(bits, a, b, act, rows * 64, notes, note_step, count, kb, starts, sums, PAIR_BYTES)
        elif count <= FEW:
            few_products(bits, a, act, rows * 64, notes, note_step, count, kb, sums)
            if second != first:
                few_products(bits, b, act, rows * 64, notes, note_step, count, kb, sums + 1024)
        else:
            next_a, next_b = np.int64(0), np.int64(0)
            if pair + 1 < end:
                next_a, next_b = blocks + (first + 2) * size, blocks + min(first + 3, nb - 1) * size
            pair_sums(bits, a, b, kb, next_a, next_b, act, count, listed, number, sums, panel)
        for tile in range(tiles):
            here = min(16, count - tile * 16)
            for row in range(here):
                token = tile * 16 + row
                # Rows are far apart, each on a page of its own.
                prefetch(out + (token + 8) * stride + first * 64)
                prefetch(out + (token + 8) * stride + first * 64 + 64)
                for half in range(second - first + 1):
                    block, place = first + half, sums + tile * PAIR_BYTES + half * 1024 + row * 64
                    y = dequantised(bits, place, notes + token * note_step, scales + block * 64)
                    if bias != 0:
                        y = add(y, load_floats(bias + block * 64))
                    if mode == STORE_BFLOAT16:
                        store_bfloat16(out + token * stride + block * 32, y)
                    else:
                        result = out + token * stride + block * 64
                        if mode == ADD:
                            y = add(load_floats(result), y)
                        store_floats(result, y)


@inlined
def _pairs_of_a_unit(count):
    """Pairs of row blocks in a unit of work: one token's are many bytes, many tokens' gain by unpacking ahead."""
    return 1 if count == 1 else 4


@inner
def product(step, matrix, out, stride, bias, mode, scratch):
    """All tokens' int8 activations by one matrix: units of a few pairs of row blocks."""
    apart()
    nb, T = get(matrix, 24), get(step, S.tokens)
    pairs, chunk = (nb + 1) // 2, _pairs_of_a_unit(T)
    unit = next_unit(get(step, S.team))
    while unit * chunk < pairs:
        products(
            get(matrix, 16), get(matrix, 0), get(matrix, 8), nb, get(matrix, 32), unit * chunk,
            min(pairs, unit * chunk + chunk), T, get(step, S.act), get(step, S.act_rows), get(step, S.act_notes),
            get(step, S.note_step), out, stride, bias, mode, scratch,
        )  # fmt: skip
        unit = next_unit(get(step, S.team))


@inner
def two_products(step, first, first_out, first_stride, first_bias, second, out, stride, bias, scratch):
    """Two matrices by the same activations: units of a few pairs of row blocks, first those of the first matrix."""
    apart()
    chunk = _pairs_of_a_unit(get(step, S.tokens))
    units = ((get(first, 24) + 1) // 2 + chunk - 1) // chunk
    unit = next_unit(get(step, S.team))
    while unit < units + ((get(second, 24) + 1) // 2 + chunk - 1) // chunk:
        matrix, number, place, step_bytes, extra = first, unit, first_out, first_stride, first_bias
        if unit >= units:
            matrix, number, place, step_bytes, extra = second, unit - units, out, stride, bias
        nb = get(matrix, 24)
        products(
            get(matrix, 16), get(matrix, 0), get(matrix, 8), nb, get(matrix, 32), number * chunk,
            min((nb + 1) // 2, number * chunk + chunk), get(step, S.tokens), get(step, S.act), get(step, S.act_rows),
            get(step, S.act_notes), get(step, S.note_step), place, step_bytes, extra, STORE, scratch,
        )  # fmt: skip
        unit = next_unit(get(step, S.team))


@inlined
def _cached_row(step, layer, number, token):
    sequence = read_int64(get(step, S.sequence) + token * 8)
    position = read_int64(get(step, S.position) + token * 8)
    base = read_int64(get(step, S.bases) + number * 8)
    page = read_int64(get(step, S.pages) + (sequence * get(step, S.table_width) + position // 64) * 8)
    return base + page * get(layer, L.page_bytes) + position % 64 * get(layer, L.row_bytes)


@inner
def latent_rows(step, layer, number, scratch):
    """Write the cache's new rows and prepare the queries of an MLA layer: units of one token.

    y holds every head's query (N + R), z the latent and the rotated key. The rotated part of the query goes to q as
    bfloat16, behind C numbers that `latent_queries` fills; the rest of it becomes int8, head by head.
    """
    apart()
    C, N, R, H = get(layer, L.value_dim), get(layer, L.nope), get(layer, L.rope), get(layer, L.heads)
    rows, kb, padded = get(step, S.act_rows), (get(layer, L.nope) + 63) // 64, _padded_tokens(step)
    token = next_unit(get(step, S.team))
    while token < get(step, S.tokens):
        cos, sin = get(layer, L.rope_cos) + token * R * 2, get(layer, L.rope_sin) + token * R * 2
        z = get(step, S.z) + token * get(step, S.z_stride)
        norm(z, get(layer, L.k_norm), C, get_float(layer, L.latent_eps), scratch)
        rotate(z + C * 4, scratch + C * 4, R, cos, sin, get(layer, L.is_interleaved))
        _cache(layer, scratch, 0, C + R, _cached_row(step, layer, number, token))
        for head in range(H):
            y = get(step, S.y) + token * get(step, S.y_stride) + head * (N + R) * 4
            rotate(y + N * 4, scratch, R, cos, sin, get(layer, L.is_interleaved))
            q = get(step, S.q) + (token * H + head) * get(step, S.q_dim) * 2
            _store_row(scratch, R, q + C * 2)
            place = head * padded + token
            out = get(step, S.head_act) + head * padded * kb * 64 + token // rows * rows * kb * 64 + token % rows * 64
            quantise(y, 64, N, out, rows * 64, get(step, S.head_notes) + place * get(step, S.head_note_step))
        token = next_unit(get(step, S.team))


@inner
def _cache(layer, source, first, count, row):
    """Write numbers of a cached row, from number `first` on, as the layer stores them."""
    apart()
    if get(layer, L.compressed) != 0:
        encode(source, False, first, count, get(layer, L.compressed), get(layer, L.row_group), row)
    else:
        _store_row(source, count, row + first * 2)


@inner
def _store_row(source, count, out):
    apart()
    whole = count // 16 * 16
    for i in range(0, whole, 16):
        store_bfloat16(out + i * 2, load_floats(source + i * 4))
    for i in range(whole, count):
        write_half(out + i * 2, half_bits(read_float(source + i * 4)))


@inlined
def _padded_tokens(step):
    rows = get(step, S.act_rows)
    return (get(step, S.tokens) + rows - 1) // rows * rows


@inner
def latent_queries(step, layer, scratch):
    """q's first C numbers, as bfloat16: units of one head by 64 outputs."""
    apart()
    C, H, padded = get(layer, L.value_dim), get(layer, L.heads), _padded_tokens(step)
    q_dim = get(step, S.q_dim)
    matrix = layer + L.w_uk
    _head_products(
        step, matrix, H, (C + 15) // 16 * 16, padded, get(step, S.q), q_dim * 2, H * q_dim * 2, STORE_BFLOAT16, scratch
    )


@inner
def latent_values(step, layer, scratch):
    """y = each head's value (H, V) from its latent result: units of one head by 64 outputs."""
    apart()
    V, H, padded = get(layer, L.value_head), get(layer, L.heads), _padded_tokens(step)
    _head_products(step, layer + L.w_uv, H, V, padded, get(step, S.y), V * 4, get(step, S.y_stride), STORE, scratch)


@inner
def _head_products(step, matrix, H, width, padded, out, head_stride, stride, mode, scratch):
    apart()
    bits, nb, kb = get(matrix, 16), get(matrix, 24), get(matrix, 32)
    rows = get(step, S.act_rows)
    size = nb * row_bytes(bits, kb)
    parts = (nb + 7) // 8
    unit = next_unit(get(step, S.team))
    while unit < H * parts:
        head = unit // parts
        begin, end = unit % parts * 4, min((nb + 1) // 2, unit % parts * 4 + 4)
        products(
            bits, get(matrix, 0) + head * size, get(matrix, 8) + head * nb * 64, nb, kb, begin, end,
            get(step, S.tokens), get(step, S.head_act) + head * padded * kb * 64, rows,
            get(step, S.head_notes) + head * padded * get(step, S.head_note_step), get(step, S.head_note_step),
            out + head * head_stride, stride, 0, mode, scratch,
        )  # fmt: skip
        unit = next_unit(get(step, S.team))


@inner
def dense_rows(step, layer, number, scratch):
    """Write the cache's new rows and the queries of a GQA layer: units of one token. y holds q, k and v."""
    apart()
    H, heads, N, R = get(layer, L.heads), get(layer, L.groups), get(layer, L.key_dim), get(layer, L.rope)
    token = next_unit(get(step, S.team))
    while token < get(step, S.tokens):
        cos, sin = get(layer, L.rope_cos) + token * R * 2, get(layer, L.rope_sin) + token * R * 2
        y = get(step, S.y) + token * get(step, S.y_stride)
        row = _cached_row(step, layer, number, token)
        for head in range(H + heads):
            source = y + head * N * 4
            weight = get(layer, L.q_norm) if head < H else get(layer, L.k_norm)
            if weight != 0:
                norm(source, weight, N, get_float(layer, L.latent_eps), source)
            rotate(source, scratch, R, cos, sin, get(layer, L.is_interleaved))
            if head < H:
                _store_row(scratch, N, get(step, S.q) + (token * H + head) * get(step, S.q_dim) * 2)
            else:
                _cache(layer, scratch, (head - H) * N, N, row)
        _cache(layer, y + (H + heads) * N * 4, heads * N, heads * N, row)
        token = next_unit(get(step, S.team))


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
    dim, rows, padded = get(layer, L.value_dim), get(step, S.act_rows), _padded_tokens(step)
    kb = (dim + 63) // 64
    for column in range(tokens * heads):
        token, h = start + column // heads, head + column % heads
        if get(layer, L.is_latent):
            attention.finish(state, dim, column, scratch)
            place = h * padded + token
            out = get(step, S.head_act) + h * padded * kb * 64 + token // rows * rows * kb * 64 + token % rows * 64
            quantise(scratch, 64, dim, out, rows * 64, get(step, S.head_notes) + place * get(step, S.head_note_step))
        else:
            attention.finish(state, dim, column, scratch)
            y = get(step, S.y) + token * get(step, S.y_stride) + h * dim * 4
            for i in range(dim):
                write_float(y + i * 4, read_float(scratch + i * 4))
