"""Around attention in a layer: projections, rotation, the cache's new rows, and the way back.

MLA in its absorbed form: queries are carried into the latent space head by head (`w_uk`), attend there to the cached
rows, and the results are carried out (`w_uv`). Source: DeepSeek-V2, arXiv 2405.04434, section 2.1 and appendix C.
"""

import numpy as np

from seamount.kernels.cpu.activations import quantise
from seamount.kernels.cpu.compiling import inlined, inner
from seamount.kernels.cpu.compressed_rows import encode
from seamount.kernels.cpu.packed_blocks import row_bytes
from seamount.kernels.cpu.panels import PAIR_BYTES
from seamount.kernels.cpu.products import begin_products, dequantised, pair_products, sums_place
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
    write_half,
)

STORE, ADD, STORE_BFLOAT16 = 0, 1, 2


@inner
def norm_rows(step, weight, eps):
    """z = norm(x), and z as int8: units of one token."""
    apart()
    token = next_unit(get(step, S.team))
    while token < get(step, S.tokens):
        z = get(step, S.z) + token * get(step, S.z_stride)
        norm(get(step, S.x) + token * get(step, S.x_stride), weight, get(step, S.hidden), eps, z)
        quantise_row(step, z, get(step, S.hidden), token)
        token = next_unit(get(step, S.team))


@inner
def quantise_rows(step, source, stride, count, weight, eps):
    """Rows of float32 as the step's int8 activations, normed first where there is a weight: units of one token."""
    apart()
    token = next_unit(get(step, S.team))
    while token < get(step, S.tokens):
        row = source + token * stride
        if weight != 0:
            norm(row, weight, count, eps, row)
        quantise_row(step, row, count, token)
        token = next_unit(get(step, S.team))


@inner
def quantise_row(step, row, count, token):
    """One token's row of float32 as the step's int8 activations."""
    apart()
    rows = get(step, S.act_rows)
    out = get(step, S.act) + token // rows * ((count + 63) // 64) * rows * 64 + token % rows * 64
    quantise(row, 64, count, out, rows * 64, get(step, S.act_notes) + token * get(step, S.note_step))


@inner
def products(
    bits, blocks, scales, nb, kb, begin, end, later, count, act, rows, notes, note_step, out, stride, bias, mode,
    scratch,
):  # fmt: skip
    """All tokens by the row blocks `2 begin` to `2 end` of one matrix; stored, added, or stored as bfloat16.

    later: where this thread will probably go on, as `begin`.
    """
    apart()
    size, tiles, sums = row_bytes(bits, kb), (count + 15) // 16, sums_place(scratch, count)
    number = begin_products(bits, act, rows * 64, notes, note_step, count, kb, scratch)
    for pair in range(begin, end):
        first = pair * 2
        second = min(first + 1, nb - 1)
        following = 2 * (pair + 1 if pair + 1 < end else later)
        next_a, next_b = np.int64(0), np.int64(0)
        if following < nb:
            next_a, next_b = blocks + following * size, blocks + min(following + 1, nb - 1) * size
        pair_products(
            bits, blocks + first * size, blocks + second * size, kb, next_a, next_b, act, rows * 64, notes, note_step,
            count, number, scratch,
        )  # fmt: skip
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
            min(pairs, unit * chunk + chunk), (unit + get(step, S.threads)) * chunk, T, get(step, S.act),
            get(step, S.act_rows), get(step, S.act_notes), get(step, S.note_step), out, stride, bias, mode, scratch,
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
            min((nb + 1) // 2, number * chunk + chunk), (number + get(step, S.threads)) * chunk, get(step, S.tokens),
            get(step, S.act), get(step, S.act_rows), get(step, S.act_notes), get(step, S.note_step), place, step_bytes,
            extra, STORE, scratch,
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
    rows, kb, padded = get(step, S.act_rows), (get(layer, L.nope) + 63) // 64, padded_tokens(step)
    token = next_unit(get(step, S.team))
    while token < get(step, S.tokens):
        angles = read_int64(get(step, S.position) + token * 8) * R * 2
        cos, sin = get(layer, L.rope_cos) + angles, get(layer, L.rope_sin) + angles
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
def padded_tokens(step):
    rows = get(step, S.act_rows)
    return (get(step, S.tokens) + rows - 1) // rows * rows


@inner
def latent_queries(step, layer, scratch):
    """q's first C numbers, as bfloat16: units of one head by 64 outputs."""
    apart()
    C, H, padded = get(layer, L.value_dim), get(layer, L.heads), padded_tokens(step)
    q_dim = get(step, S.q_dim)
    matrix = layer + L.w_uk
    _head_products(
        step, matrix, H, (C + 15) // 16 * 16, padded, get(step, S.q), q_dim * 2, H * q_dim * 2, STORE_BFLOAT16, scratch
    )


@inner
def latent_values(step, layer, scratch):
    """y = each head's value (H, V) from its latent result: units of one head by 64 outputs."""
    apart()
    V, H, padded = get(layer, L.value_head), get(layer, L.heads), padded_tokens(step)
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
            bits, get(matrix, 0) + head * size, get(matrix, 8) + head * nb * 64, nb, kb, begin, end, nb,
            get(step, S.tokens), get(step, S.head_act) + head * padded * kb * 64, rows,
            get(step, S.head_notes) + head * padded * get(step, S.head_note_step), get(step, S.head_note_step),
            out + head * head_stride, stride, 0, mode, scratch,
        )  # fmt: skip
        unit = next_unit(get(step, S.team))


@inner
def dense_rows(step, layer, number, scratch):
    """Write the cache's new rows and the queries of a GQA layer: units of one token."""
    apart()
    token = next_unit(get(step, S.team))
    while token < get(step, S.tokens):
        dense_row(step, layer, number, token, scratch)
        token = next_unit(get(step, S.team))


@inner
def dense_row(step, layer, number, token, scratch):
    """Write one token's cached row and its queries. y holds q, k and v."""
    apart()
    H, heads, N, R = get(layer, L.heads), get(layer, L.groups), get(layer, L.key_dim), get(layer, L.rope)
    angles = read_int64(get(step, S.position) + token * 8) * R * 2
    cos, sin = get(layer, L.rope_cos) + angles, get(layer, L.rope_sin) + angles
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
