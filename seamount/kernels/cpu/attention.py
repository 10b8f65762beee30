"""Attention over cached rows: bfloat16 rows in pages of 64, up to sixteen queries at a time, one fixed order of sums.

The sixteen columns of a unit are queries that read the same keys: the heads of one key-value head (all heads, for a
latent cache), of one token or of several. A row is loaded once for all of them.

    scores  S[s, j]  rows s of the page by columns j, tiles of 32 numbers along the key
    softmax          online, page by page: m = max(m, max over s), p = exp(scale S - m), l = l exp(m_old - m) + sum of p
    output  O[j, c]  p rounded to bfloat16, tiles of 32 rows along s

Pages are folded into segments of 512 rows, and segments into the result, always in the order of the rows: so a token's
numbers depend on its own rows alone, whoever else is in the batch and however the work was divided.

Source: online softmax, arXiv 1805.02867; split along the keys, Flash-Decoding (2023).
"""

import numpy as np

from seamount.kernels.cpu.compiling import inlined, inner
from seamount.kernels.cpu.rowwise import exp
from seamount.kernels.cpu.target import TARGET
from seamount.kernels.cpu.tiles import tile_dot_bfloat16, tile_load, tile_store, tile_zero
from seamount.kernels.cpu.vector import (
    add,
    apart,
    divide,
    floats,
    fma,
    interleave_bfloat16,
    ints,
    keep_below,
    larger,
    load_bytes,
    load_floats,
    load_ints,
    max_lanes,
    multiply,
    pair_even,
    pair_odd,
    read_float,
    read_half,
    read_int32,
    read_int64,
    store_bfloat16,
    store_bytes,
    store_floats,
    store_ints,
    subtract,
    transpose16,
    write_half,
    zero_ints,
)

PAGE, SEGMENT, COLUMNS = 64, 512, 16
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
    """Bytes that one thread needs beside the states."""
    keys, values = (key_dim + 31) // 32 * 64, (value_dim + 31) // 32 * 64
    return 16 * keys * 2 + PAGE * (keys + values) + 4096 * 2 + 2048 + 16 * 1024 + 256


@inlined
def _dot(c, c_stride, a, a_stride, b):
    """`C += A B` for tiles of bfloat16 in the order of tdpbf16ps: even k, odd k, each by fma from zero; their sum; + C.

    Source: Intel's description of TDPBF16PS, and kernel tests on the instruction itself.
    """
    for row in range(16):
        even = floats(_ZERO)
        odd = floats(_ZERO)
        for pair in range(16):
            left = ints(read_int32(a + row * a_stride + pair * 4))
            right = load_ints(b + pair * 64)
            even = fma(pair_even(left), pair_even(right), even)
            odd = fma(pair_odd(left), pair_odd(right), odd)
        place = c + row * c_stride
        store_floats(place, add(load_floats(place), add(even, odd)))


if TARGET.has_amx:

    @inner
    def _scores(keys, stride, queries, tiles, out):
        """64 rows by 16 columns: out (64, 16) float32."""
        apart()
        for block in range(0, 4, 2):
            first = keys + block * 16 * stride
            second = first + 16 * stride
            tile_zero(0)
            tile_zero(1)
            for tile in range(tiles):
                tile_load(3, queries + tile * 1024, 64)
                tile_load(2, first + tile * 64, stride)
                tile_dot_bfloat16(0, 2, 3)
                tile_load(2, second + tile * 64, stride)
                tile_dot_bfloat16(1, 2, 3)
            tile_store(0, out + block * 1024, 64)
            tile_store(1, out + block * 1024 + 1024, 64)

    @inner
    def _outputs(values, stride, p, width, out, scratch):
        """O (16, width) += p (16, 64) by 64 rows of values."""
        apart()
        for column in range(0, width, 16):
            mixed = scratch + (column // 16 % 8) * 2048
            for pair in range(32):
                row = values + 2 * pair * stride + column * 2
                interleave_bfloat16(row, row + stride, mixed + pair * 64)
            tile_load(0, out + column * 4, width * 4)
            tile_load(2, p, 128)
            tile_load(3, mixed, 64)
            tile_dot_bfloat16(0, 2, 3)
            tile_load(2, p + 64, 128)
            tile_load(3, mixed + 1024, 64)
            tile_dot_bfloat16(0, 2, 3)
            tile_store(0, out + column * 4, width * 4)

else:

    @inner
    def _scores(keys, stride, queries, tiles, out):
        """64 rows by 16 columns: out (64, 16) float32."""
        apart()
        for row in range(64):
            store_floats(out + row * 64, floats(_ZERO))
        for block in range(4):
            for tile in range(tiles):
                _dot(out + block * 1024, 64, keys + block * 16 * stride + tile * 64, stride, queries + tile * 1024)

    @inner
    def _outputs(values, stride, p, width, out, scratch):
        """O (16, width) += p (16, 64) by 64 rows of values."""
        apart()
        for column in range(0, width, 16):
            for pair in range(32):
                row = values + 2 * pair * stride + column * 2
                interleave_bfloat16(row, row + stride, scratch + pair * 64)
            _dot(out + column * 4, width * 4, p, 128, scratch)
            _dot(out + column * 4, width * 4, p + 64, 128, scratch + 1024)


@inner
def _copy_rows(source, stride, rows, dim, out, out_stride):
    """Copy `rows` rows of bfloat16 and make zeros of the rest of 64 rows and of each row's padding."""
    apart()
    whole = dim * 2 // 64 * 64
    for row in range(PAGE):
        place = out + row * out_stride
        for i in range(0, out_stride, 64):
            if row < rows and i < whole:
                store_bytes(place + i, load_bytes(source + row * stride + i))
            else:
                store_ints(place + i, zero_ints())
        if row < rows:
            for i in range(whole, dim * 2, 2):
                write_half(place + i, read_half(source + row * stride + i))


@inner
def pack_queries(q, count, heads, token_stride, head_stride, dim, scratch, out):
    """Columns side by side: out (dim / 32, 16 pairs, 16 columns, 2) bfloat16 from rows of `dim` (a multiple of 32).

    Column j is head j % heads of token j // heads; missing columns are zero.
    """
    apart()
    for column in range(COLUMNS):
        row = q + (column // heads) * token_stride + (column % heads) * head_stride
        for i in range(0, dim * 2, 64):
            if column < count:
                store_bytes(scratch + column * dim * 2 + i, load_bytes(row + i))
            else:
                store_ints(scratch + column * dim * 2 + i, zero_ints())
    for tile in range(dim // 32):
        transpose16(scratch + tile * 64, dim * 2, out + tile * 1024, 64)


@inner
def _softmax(scores, limits, page, scale, state, p):
    """Fold one page's scores into m and l; p as bfloat16 (16, 64), and O's old part scaled."""
    apart()
    visible = load_ints(limits)
    old = load_floats(state)
    best = old
    for row in range(PAGE):
        v = keep_below(multiply(load_floats(scores + row * 64), floats(scale)), visible, np.int32(page * PAGE + row))
        store_floats(scores + row * 64, v)
        best = larger(v, best)
    total = floats(_ZERO)
    for row in range(PAGE):
        v = exp(subtract(load_floats(scores + row * 64), best))
        store_floats(scores + row * 64, v)
        total = add(total, v)
    factor = exp(subtract(old, best))
    store_floats(state, best)
    store_floats(state + 64, fma(load_floats(state + 64), factor, total))
    for block in range(4):
        transpose16(scores + block * 1024, 64, scores + 4096, 64)
        for column in range(COLUMNS):
            store_bfloat16(p + column * 128 + block * 32, load_floats(scores + 4096 + column * 64))
    return factor


@inner
def _scale_outputs(state, width, factors):
    apart()
    for column in range(COLUMNS):
        factor = floats(read_float(factors + column * 4))
        row = state + 128 + column * width * 4
        for i in range(0, width * 4, 64):
            store_floats(row + i, multiply(load_floats(row + i), factor))


@inner
def begin(state, value_dim):
    """Nothing seen yet."""
    apart()
    store_floats(state, floats(_LOW))
    for i in range(64, state_bytes(value_dim), 64):
        store_floats(state + i, floats(_ZERO))


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
    limits,
    scale,
    queries,
    state,
    scratch,
):
    """Fold the rows first .. last - 1 into the state of sixteen columns; `first` is a multiple of 64.

    base, pages: row s stands at `base + pages[s // 64] * page_bytes + (s % 64) * row_bytes`; its key begins at byte
    `key_at`, its value at `value_at`. limits: 16 int32, the rows that each column sees. queries: from pack_queries.
    """
    apart()
    tiles = _padded(key_dim, 32) // 32
    width = _padded(value_dim, 16)
    scores = scratch
    p = scratch + 8192
    mixed = p + 2048
    key_copy = mixed + 16 * 1024
    value_copy = key_copy + PAGE * tiles * 64
    for page in range(first // PAGE, (last + PAGE - 1) // PAGE):
        place = base + read_int64(pages + page * 8) * page_bytes
        rows = min(PAGE, last - page * PAGE)
        keys = place + key_at
        key_stride = row_bytes
        values = place + value_at
        value_stride = row_bytes
        if rows < PAGE or key_dim % 32 != 0:
            _copy_rows(keys, row_bytes, rows, key_dim, key_copy, tiles * 64)
            keys = key_copy
            key_stride = tiles * 64
        if rows < PAGE or value_dim % 16 != 0:
            value_stride = _padded(width * 2, 64)
            _copy_rows(values, row_bytes, rows, value_dim, value_copy, value_stride)
            values = value_copy
        _scores(keys, key_stride, queries, tiles, scores)
        factor = _softmax(scores, limits, page, scale, state, p)
        store_floats(scores, factor)
        if max_lanes(subtract(floats(_ONE), factor)) > _ZERO:
            _scale_outputs(state, width, scores)
        _outputs(values, value_stride, p, width, state + 128, mixed)


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
def finish(state, value_dim, column, out):
    """The result of one column: O / l, float32; writes a row padded to 16."""
    apart()
    width = _padded(value_dim, 16)
    inverse = divide(floats(_ONE), floats(read_float(state + 64 + column * 4)))
    row = state + 128 + column * width * 4
    for i in range(0, width * 4, 64):
        store_floats(out + i, multiply(load_floats(row + i), inverse))
