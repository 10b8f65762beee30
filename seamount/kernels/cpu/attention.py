"""Attention over cached rows: bfloat16 rows in pages of 64, up to sixteen queries at a time, one fixed order of sums.

The sixteen columns of a group are queries that read the same keys: the heads of one key-value head (all heads, for a
latent cache), of one token or of several. A row is loaded once for all of them, and groups that read the same pages go
through them together, so that a page's values are interleaved for the tiles once for all groups.

    scores  S[s, j]  rows s of the page by columns j, tiles of 32 numbers along the key
    softmax          online, page by page: m = max(m, max over s), p = exp(scale S - m), l = l exp(m_old - m) + sum of p
    output  O[j, c]  p rounded to bfloat16, tiles of 32 rows along s

Pages are folded into segments of 512 rows, and segments into the result, always in the order of the rows: so a token's
numbers depend on its own rows alone, whoever else is in the batch and however the work was divided. Only a value that
is not finite also reaches earlier tokens of its group or of groups beside it, and other heads, as 0 times itself.

Source: online softmax, arXiv 1805.02867; split along the keys, Flash-Decoding (2023).
"""

import numpy as np

from seamount.kernels.cpu.compiling import inlined, inner
from seamount.kernels.cpu.compressed_rows import decode
from seamount.kernels.cpu.emulated_tiles import add_product, add_product_of_rows
from seamount.kernels.cpu.rowwise import exp
from seamount.kernels.cpu.softmax import falling_exp, store_weights
from seamount.kernels.cpu.target import TARGET
from seamount.kernels.cpu.tiles import tile_dot_bfloat16, tile_load, tile_store, tile_zero
from seamount.kernels.cpu.vector import (
    add,
    apart,
    divide,
    floats,
    fma,
    interleave_bfloat16,
    keep_below,
    larger,
    load_bytes,
    load_floats,
    load_ints,
    multiply,
    prefetch,
    read_float,
    read_half,
    read_int32,
    read_int64,
    store_bytes,
    store_floats,
    store_ints,
    subtract,
    transpose16,
    write_half,
    write_int64,
    zero_ints,
)
from seamount.kernels.paged import PAGE

SEGMENT, COLUMNS = 512, 16
HALF = 32  # rows of a page that one tile holds as pairs
MOST_GROUPS = 8  # column groups that go through a page together
_P_BYTES, _SCORE_BYTES, _SEEN_BYTES = COLUMNS * PAGE * 2, COLUMNS * PAGE * 4, 64  # of one group
_MIXED_BYTES = 8 * 2048  # a page's values interleaved, 16 numbers of each: eight of these by turns
_LOW = np.float32(-1e30)  # below every score, and finite, so that LOW - LOW is 0
_ZERO, _ONE = np.float32(0), np.float32(1)


@inlined
def _padded(dim, to):
    return (dim + to - 1) // to * to


@inlined
def state_bytes(value_dim):
    """Bytes of the state of sixteen columns: m, l (16 floats each), then O (16, value_dim padded to 16), float32."""
    return 128 + COLUMNS * ((value_dim + 15) // 16 * 16) * 4


@inlined
def scratch_bytes(key_dim, value_dim):
    """Bytes that one thread needs beside the states and the queries."""
    keys, values = (key_dim + 31) // 32 * 64, (value_dim + 31) // 32 * 64
    return MOST_GROUPS * (_P_BYTES + _SCORE_BYTES + _SEEN_BYTES) + _MIXED_BYTES + PAGE * (keys + values)


if TARGET.has_amx:

    @inner
    def _scores(keys, stride, queries, tiles, out, ahead, ahead_stride):
        """32 rows by 16 columns: out (32, 16) float32. Rows that come later are seen coming."""
        apart()
        second = keys + 16 * stride
        tile_zero(0)
        tile_zero(1)
        for tile in range(tiles):
            tile_load(3, queries + tile * 1024, 64)
            tile_load(2, keys + tile * 64, stride)
            tile_dot_bfloat16(0, 2, 3)
            tile_load(2, second + tile * 64, stride)
            tile_dot_bfloat16(1, 2, 3)
        tile_store(0, out, 64)
        tile_store(1, out + 1024, 64)

    @inlined
    def _mix(p, rows, mixed, is_first, out, stride):
        """Sixteen numbers of O: those before, unless this is the first page, and p by the interleaved values."""
        if is_first:
            tile_zero(0)
        else:
            tile_load(0, out, stride)
        tile_load(1, p, 64)
        tile_dot_bfloat16(0, 1, 2)
        if rows > HALF:
            tile_load(1, p + 1024, 64)
            tile_dot_bfloat16(0, 1, 3)
        tile_store(0, out, stride)

    @inlined
    def _take_mixed(mixed):
        """Keep the interleaved values in tiles while all groups use them."""
        tile_load(2, mixed, 64)
        tile_load(3, mixed + 1024, 64)

    @inner
    def _outputs(values, stride, first, rows, width, groups, seen, p, is_first, states, state_step, scratch):
        """O (16, width) += p (16, 64) by 64 rows of values, for every group that sees row `first`.

        All groups take 16 numbers before the next 16 are interleaved, so that those stay in the nearest cache.
        """
        apart()
        pairs = 16 if rows <= HALF else 32
        for column in range(0, width, 16):
            mixed = scratch + (column // 16 % 8) * 2048
            for pair in range(pairs):
                row = values + 2 * pair * stride + column * 2
                interleave_bfloat16(row, row + stride, mixed + pair * 64)
            _take_mixed(mixed)
            for group in range(groups):
                here = read_int64(seen + group * _SEEN_BYTES) - first
                if here > 0:
                    out = states + group * state_step + 128 + column * 4
                    _mix(p + group * _P_BYTES, here, mixed, is_first, out, width * 4)

else:

    @inner
    def _scores(keys, stride, queries, tiles, out, ahead, ahead_stride):
        """32 rows by 16 columns: out (32, 16) float32, while as many rows at `ahead`, unless it is 0, come nearer."""
        apart()
        for row in range(HALF):
            store_floats(out + row * 64, floats(_ZERO))
        for tile in range(tiles):
            if ahead != 0:
                for row in range(HALF):
                    prefetch(ahead + row * ahead_stride + tile * 64)
            add_product(out, 64, keys + tile * 64, stride, HALF, queries + tile * 1024, 64)

    @inner
    def _outputs(values, stride, first, rows, width, groups, seen, p, is_first, states, state_step, scratch):
        """O (16, width) += p (16, 64) by 64 rows of values, for every group that sees row `first`."""
        apart()
        for column in range(0, width, 16):
            place = values + column * 2
            for group in range(groups):
                own, out = seen + group * _SEEN_BYTES, states + group * state_step + 128 + column * 4
                here, columns, weights = read_int64(own) - first, read_int64(own + 16), p + group * _P_BYTES
                if here > 0 and is_first:
                    for row in range(COLUMNS):
                        store_floats(out + row * width * 4, floats(_ZERO))
                if here > 0:
                    add_product_of_rows(out, width * 4, weights, 64, columns, place, 2 * stride)
                if here > HALF:
                    later = place + HALF * stride
                    add_product_of_rows(out, width * 4, weights + 1024, 64, columns, later, 2 * stride)


@inner
def _copy_rows(source, stride, rows, dim, out, out_stride):
    """Copy `rows` rows of bfloat16; zeros for the rest of 32 or 64 rows, and for each row's padding."""
    apart()
    whole = dim * 2 // 64 * 64
    for row in range(rows):
        place, old = out + row * out_stride, source + row * stride
        for i in range(0, whole, 64):
            store_bytes(place + i, load_bytes(old + i))
        for i in range(whole, out_stride, 64):
            store_ints(place + i, zero_ints())
        for i in range(whole, dim * 2, 2):
            write_half(place + i, read_half(old + i))
    for i in range(rows * out_stride, _padded(rows, HALF) * out_stride, 64):
        store_ints(out + i, zero_ints())


@inner
def _readable(place, row_bytes, rows, at, dim, whole, compressed, row_group, copy, copy_stride, later):
    """Where tiles may read `dim` numbers of each row of a page, and the stride: in the page or, if need be, a copy."""
    apart()
    if compressed != 0:
        decode(place, row_bytes, rows, at // 2, dim, compressed, row_group, True, copy, copy_stride, later)
        return copy, copy_stride
    if rows < PAGE or dim % whole != 0:
        _copy_rows(place + at, row_bytes, rows, dim, copy, copy_stride)
        return copy, copy_stride
    return place + at, row_bytes


@inner
def _ask_for(place, row_bytes, rows, dim):
    """Ask for a part of some rows of a page: so narrow a part that the processor does not see it coming by itself."""
    apart()
    for row in range(rows):
        for line in range(0, dim * 2, 64):
            prefetch(place + row * row_bytes + line)


@inner
def pack_queries(q, count, heads, token_stride, head_stride, dim, scratch, out):
    """Columns side by side: out (dim / 32, 16 pairs, 16 columns, 2) bfloat16 from rows of `dim` (a multiple of 32).

    Column j is head j % heads of token j // heads; missing columns are zero.
    """
    apart()
    source, stride = q, head_stride
    if heads < COLUMNS:
        source, stride = scratch, dim * 2
        for column in range(COLUMNS):
            row = q + (column // heads) * token_stride + (column % heads) * head_stride
            for i in range(0, dim * 2, 64):
                if column < count:
                    store_bytes(scratch + column * dim * 2 + i, load_bytes(row + i))
                else:
                    store_ints(scratch + column * dim * 2 + i, zero_ints())
    for tile in range(dim // 32):
        transpose16(source + tile * 64, stride, out + tile * 1024, 64)


@inner
def pack_beside(q, count, heads, stride, dim, width, scratch, out):
    """`pack_queries` of `count` query heads of one token, `heads` of them for each of some key-value heads.

    A row of `width` numbers holds theirs side by side, `dim` of each, a multiple of 32; zeros where another one's are.
    """
    apart()
    for i in range(0, COLUMNS * width * 2, 64):
        store_ints(scratch + i, zero_ints())
    for column in range(count):
        row = scratch + (column * width + column // heads * dim) * 2
        for i in range(0, dim * 2, 64):
            store_bytes(row + i, load_bytes(q + column * stride + i))
    for tile in range(width // 32):
        transpose16(scratch + tile * 64, width * 2, out + tile * 1024, 64)


@inner
def _softmax(scores, limits, first, rows, is_whole, scale, state, p):
    """Fold 32 or 64 rows of a page into m and l; p as bfloat16 (2 halves, 16, 32); the factors of O's old part.

    is_whole: all columns see all rows, and no score is to be dropped.
    """
    apart()
    old = load_floats(state)
    best, other = old, old
    if is_whole:
        for row in range(0, rows, 2):
            best = larger(multiply(load_floats(scores + row * 64), floats(scale)), best)
            other = larger(multiply(load_floats(scores + row * 64 + 64), floats(scale)), other)
    else:
        visible = load_ints(limits)
        for row in range(rows):
            v = keep_below(multiply(load_floats(scores + row * 64), floats(scale)), visible, np.int32(first + row))
            best = larger(v, best)
            store_floats(scores + row * 64, v)
    best = larger(other, best)
    # What was stored to be read again is scaled already.
    again = floats(scale) if is_whole else floats(_ONE)
    total = floats(_ZERO)
    for pair in range(rows // 2):
        even = falling_exp(subtract(multiply(load_floats(scores + pair * 128), again), best))
        odd = falling_exp(subtract(multiply(load_floats(scores + pair * 128 + 64), again), best))
        total = add(add(total, even), odd)
        store_weights(scores + pair * 64, even, odd)
    factor = falling_exp(subtract(old, best))
    store_floats(state, best)
    store_floats(state + 64, fma(load_floats(state + 64), factor, total))
    for half in range(rows // HALF):
        transpose16(scores + half * 1024, 64, p + half * 1024, 64)
    return factor


@inner
def _scale_outputs(state, width, factors):
    """O's rows by their factors; a factor of 1 changes nothing."""
    apart()
    for column in range(COLUMNS):
        factor = read_float(factors + column * 4)
        if factor != _ONE:
            row = state + 128 + column * width * 4
            for i in range(0, width * 4, 64):
                store_floats(row + i, multiply(load_floats(row + i), floats(factor)))


@inner
def begin(state, value_dim):
    """Nothing seen yet."""
    apart()
    store_floats(state, floats(_LOW))
    for i in range(64, state_bytes(value_dim), 64):
        store_floats(state + i, floats(_ZERO))


@inner
def _begin_groups(groups, limits, first, last, seen, states, state_step):
    """m and l of nothing seen; for each group the most and the fewest rows that a column sees, and columns that see."""
    apart()
    for group in range(groups):
        most, fewest, columns = 0, last, 0
        for column in range(COLUMNS):
            limit = np.int64(read_int32(limits + group * 64 + column * 4))
            most = max(most, limit)
            if limit > 0:
                fewest, columns = min(fewest, limit), column + 1
        write_int64(seen + group * _SEEN_BYTES, min(most, last))
        write_int64(seen + group * _SEEN_BYTES + 8, fewest)
        write_int64(seen + group * _SEEN_BYTES + 16, columns)
        if most > first:
            store_floats(states + group * state_step, floats(_LOW))
            store_floats(states + group * state_step + 64, floats(_ZERO))


@inner
def segment(
    base,
    pages,
    page_bytes,
    row_bytes,
    key_at,
    key_dim,
    value_at,
    value_dim,
    first,
    last,
    groups,
    limits,
    scale,
    queries,
    query_step,
    states,
    state_step,
    scratch,
    compressed,
    row_group,
):
    """The states of some groups of sixteen columns after the rows first .. last - 1; `first` is a multiple of 64.

    base, pages: row s stands at `base + pages[s // 64] * page_bytes + (s % 64) * row_bytes`; its key begins at byte
    `key_at`, its value at `value_at`. groups: up to MOST_GROUPS. limits (groups, 16) int32: the rows that each column
    sees, 0 for a column without a query. queries: of each group, `query_step` bytes apart, what pack_queries
    wrote. states: written from the start, `state_step` bytes apart, but left alone for a group that sees no row here.
    compressed, row_group: of the rows' RowFormat, 0 for none; key and value begin as they would in bfloat16.
    """
    apart()
    tiles = _padded(key_dim, 32) // 32
    width = _padded(value_dim, 16)
    seen = scratch
    scores = seen + MOST_GROUPS * _SEEN_BYTES
    p = scores + MOST_GROUPS * _SCORE_BYTES
    mixed = p + MOST_GROUPS * _P_BYTES
    key_copy = mixed + _MIXED_BYTES
    value_copy = key_copy + PAGE * tiles * 64
    _begin_groups(groups, limits, first, last, seen, states, state_step)
    for start in range(first, last, PAGE):
        place = base + read_int64(pages + start // PAGE * 8) * page_bytes
        rows = min(PAGE, last - start)
        later = base + read_int64(pages + min(start + PAGE, last - 1) // PAGE * 8) * page_bytes
        if key_at != value_at and compressed == 0:
            if start == first:
                _ask_for(place + key_at, row_bytes, rows, key_dim)
            _ask_for(place + value_at, row_bytes, rows, value_dim)
            _ask_for(later + key_at, row_bytes, min(PAGE, last - start - PAGE), key_dim)
        keys, key_stride = _readable(
            place, row_bytes, rows, key_at, key_dim, 32, compressed, row_group, key_copy, tiles * 64, later
        )
        values, value_stride = keys, key_stride
        if key_at != value_at or value_dim > key_dim or value_dim % 16 != 0:
            values, value_stride = _readable(
                place, row_bytes, rows, value_at, value_dim, 16, compressed, row_group, value_copy,
                _padded(width * 2, 64), later,
            )  # fmt: skip
        # All groups take 32 rows before the next 32, which are more bytes than a group's queries.
        for row in range(0, rows, HALF):
            for group in range(groups):
                if read_int64(seen + group * _SEEN_BYTES) > start + row:
                    out = scores + group * _SCORE_BYTES + row * 64
                    ahead = np.int64(0)
                    if group == 0 and key_at == value_at and compressed == 0 and start + PAGE < last:
                        ahead = later + key_at + row * row_bytes
                    own = queries + group * query_step
                    _scores(keys + row * key_stride, key_stride, own, tiles, out, ahead, row_bytes)
        for group in range(groups):
            here = min(rows, read_int64(seen + group * _SEEN_BYTES) - start)
            if here > 0:
                here = _padded(here, HALF)
                is_whole = read_int64(seen + group * _SEEN_BYTES + 8) >= start + here
                state, own = states + group * state_step, scores + group * _SCORE_BYTES
                factor = _softmax(own, limits + group * 64, start, here, is_whole, scale, state, p + group * _P_BYTES)
                store_floats(own, factor)
                if start > first:
                    _scale_outputs(state, width, own)
        _outputs(values, value_stride, start, rows, width, groups, seen, p, start == first, states, state_step, mixed)


@inner
def fold(state, newer, value_dim):
    """Fold the state of later rows into that of earlier ones."""
    apart()
    width = _padded(value_dim, 16)
    mine = load_floats(state)
    other = load_floats(newer)
    best = larger(mine, other)
    a = exp(subtract(mine, best))
    b = exp(subtract(other, best))
    store_floats(state, a)
    store_floats(newer, b)
    store_floats(state + 64, fma(load_floats(newer + 64), b, multiply(load_floats(state + 64), a)))
    for column in range(COLUMNS):
        left = floats(read_float(state + column * 4))
        right = floats(read_float(newer + column * 4))
        row = 128 + column * width * 4
        for i in range(row, row + width * 4, 64):
            store_floats(state + i, fma(load_floats(newer + i), right, multiply(load_floats(state + i), left)))
    store_floats(state, best)


@inner
def finish(state, value_dim, column, first, count, out):
    """Some numbers of one column's result: O / l, float32; writes them padded to 16."""
    apart()
    inverse = divide(floats(_ONE), floats(read_float(state + 64 + column * 4)))
    row = state + 128 + (column * _padded(value_dim, 16) + first) * 4
    for i in range(0, count * 4, 64):
        store_floats(out + i, multiply(load_floats(row + i), inverse))
