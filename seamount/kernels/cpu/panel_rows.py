"""Tokens by a panel of unpacked weights, by vectors: several tokens share each load of the weights.

For every vector of weights a token costs one broadcast of four codes and a dot with each of the two row blocks, whose
sums stay in registers.
"""

from numba import types
from numba.extending import intrinsic

from seamount.kernels.cpu.compiling import inlined, inner, inner_for
from seamount.kernels.cpu.instructions import I64, Bytes, Ints, address, read, write
from seamount.kernels.cpu.target import TARGET
from seamount.kernels.cpu.vector import (
    apart,
    emit_broadcast4,
    emit_dot4,
    load_bytes,
    prefetch_far,
    store_ints,
    zero_ints,
)

PAIR_BYTES = 2048  # two tiles of 16 x 16 int32 sums
# Tokens whose sums have room in registers, and half as many for what remains.
_MANY, _SOME = (8, 4) if TARGET.has_avx512 else (2, 1)


def _of_rows(rows):
    """So many tokens by a panel: their sums (2, rows, 16), those of the second row block 1024 bytes behind."""
    kind = types.UniTuple(Ints, 2 * rows)
    places = [block * 1024 + row * 64 for block in (0, 1) for row in range(rows)]

    @intrinsic
    def read_sums(context, place):
        def generate(context, builder, signature, values):
            found = [read(builder, builder.add(values[0], I64(offset)), Ints.ir_type) for offset in places]
            return context.make_tuple(builder, kind, found)

        return kind(address), generate

    @intrinsic
    def write_sums(context, sums, place):
        def generate(context, builder, signature, values):
            for number, offset in enumerate(places):
                write(builder, builder.add(values[1], I64(offset)), builder.extract_value(values[0], number))
            return context.get_dummy_value()

        return types.void(kind, address), generate

    @intrinsic
    def add_dots(context, sums, first, second, x):
        """Four more codes of every token by a vector of each row block."""

        def generate(context, builder, signature, values):
            sums, *blocks, place = values
            codes = [emit_broadcast4(builder, builder.add(place, I64(row * 64))) for row in range(rows)]
            made = [
                emit_dot4(builder, builder.extract_value(sums, number), blocks[number // rows], codes[number % rows])
                for number in range(2 * rows)
            ]
            return context.make_tuple(builder, kind, made)

        return kind(kind, Bytes, Bytes, address), generate

    @inner_for(str(rows))
    def add_rows(x, first, second, steps, sums, ahead_a, ahead_b, lines):
        apart()
        total = read_sums(sums)
        for tile in range(steps):
            for line in range(tile * lines, tile * lines + lines):
                prefetch_far(ahead_a + line * 64)
                prefetch_far(ahead_b + line * 64)
            for vector in range(16):
                at = tile * 1024 + vector * 64
                total = add_dots(total, load_bytes(first + at), load_bytes(second + at), x + tile * 1024 + vector * 4)
        write_sums(total, sums)

    return add_rows


_add_many, _add_some = _of_rows(_MANY), _of_rows(_SOME)


@inlined
def _clear_sums(count, sums):
    for pair in range((count + 15) // 16):
        for line in range(0, PAIR_BYTES, 64):
            store_ints(sums + pair * PAIR_BYTES + line, zero_ints())


@inner
def row_sums(x, x_step, count, first, second, steps, sums, is_first, ahead_a, ahead_b, most):
    """All tokens by one panel of `steps` tiles, and some rows behind the last token, of its tile.

    Meanwhile the next `most` lines of each block for each tile come from memory.
    """
    apart()
    if is_first:
        _clear_sums(count, sums)
    row, asked = 0, 0
    each = (most * _MANY + count - 1) // count
    while row < count:
        place, total = x + row // 16 * x_step + row % 16 * 64, sums + row // 16 * PAIR_BYTES + row % 16 * 64
        lines, ahead = min(each, most - asked), asked * steps * 64
        asked += lines
        if row + _SOME < count:
            _add_many(place, first, second, steps, total, ahead_a + ahead, ahead_b + ahead, lines)
            row += _MANY
        else:
            _add_some(place, first, second, steps, total, ahead_a + ahead, ahead_b + ahead, lines)
            row += _SOME
