"""Drawing tokens: a few passes over each row, and logarithms for the few tokens that can win.

A token's score is s - log(E), where s is its logit below the largest one, divided by the temperature, and
E = -log(1 - u) with its random number u. It beats the best score B so far exactly if E < exp(s - B). As E >= u, a token
whose u, or the 24 bits of it that are at hand, is not below exp(s - B) cannot: it is passed over. That is tested on
logarithms, in float32 and with a margin far above its rounding; what passes is computed in float64.

The winner of all tokens is the winner of those that a filter keeps, if it is kept. So top-p sorts nothing: if what
stands before the winner holds the share already, neither it nor anything behind it is kept, and those before it go on.

What a filter keeps stands before a place (value, id) in the order of the logits, equal ones by id.
Equals: reference.sampling, but for tokens so near the edge of top-p that float32 sums decide.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from torch import Tensor

from seamount.kernels.cpu.compiling import inlined, inner
from seamount.kernels.cpu.dense import counters, next_unit
from seamount.kernels.cpu.instructions import I16, I64, Floats, Ints, address, constant, instruction, read, splat
from seamount.kernels.cpu.launch import all_workers, argument, launch
from seamount.kernels.cpu.partial import load_part
from seamount.kernels.cpu.philox import store_random, upper_24_bits
from seamount.kernels.cpu.softmax import falling_exp
from seamount.kernels.cpu.vector import (
    add,
    apart,
    bits_to_float,
    floats,
    fma,
    larger,
    load_floats,
    load_ints,
    max_lanes,
    multiply,
    read_float,
    read_half,
    read_int32,
    read_int64,
    store_floats,
    subtract,
    sum_lanes,
    to_floats,
    write_float,
    write_int64,
)
from seamount.kernels.reference.sampling import Draw

NOTHING_ALLOWED, NOT_FINITE = -1, -2
_ZERO, _MINUS_INFINITY, _INFINITY = np.float32(0), np.float32(-np.inf), np.float32(np.inf)
_LOWEST_KEY = np.int64(-(2**63))
_LOW_HALF = np.int64(2**32 - 1)
# The bits of a float32 above 0, as a number, are at most 2^23 (127 + its logarithm to base 2), and hardly less.
_LOG2_BITS = 2.0**23 / np.log(2.0)
_SHIFT = 2.0**23 * (127 + 24)
# In an exponent: far above what float32 errs by where a token may win, between -37 and 4.
_MARGIN = 0.001
# -log(-log(1 - u)) of the smallest u, 2^-53, and more.
_MOST_NOISE = 38.0
_BLOCK, _SUM = 64, 4096  # tokens that share counters; tokens whose exponentials are summed in float32
_WORDS = 512  # bytes of random numbers for a block: upper and lower halves
_ALONE = 1 << 15  # numbers below which another thread is not worth waking

_BITS = ir.VectorType(ir.IntType(1), 16)


@instruction(types.int64, Floats, Floats)
def lanes_above(builder: Any, left: Any, right: Any) -> Any:
    """A bit for each lane where the left one is larger, or they cannot be compared."""
    bits = builder.fcmp_unordered(">", left, right)
    return builder.zext(builder.bitcast(bits, I16), I64)


@instruction(Floats, Floats, types.int16)
def keep_bits(builder: Any, value: Any, bits: Any) -> Any:
    """`value` in the lanes whose bit is set, minus infinity in the others."""
    return builder.select(builder.bitcast(bits, _BITS), value, constant(Floats.ir_type, float("-inf")))


@instruction(Floats, Floats, types.float32, types.int64)
def keep_before(builder: Any, tested: Any, value: Any, lanes: Any) -> Any:
    """What is above `value`, or equal to it and among the first lanes; minus infinity elsewhere."""
    wide, bound = ir.VectorType(I64, 16), splat(builder, value, Floats.ir_type)
    is_first = builder.icmp_signed("<", ir.Constant(wide, list(range(16))), splat(builder, lanes, wide))
    is_equal = builder.and_(builder.fcmp_ordered("==", tested, bound), is_first)
    is_before = builder.or_(builder.fcmp_ordered(">", tested, bound), is_equal)
    return builder.select(is_before, tested, constant(Floats.ir_type, float("-inf")))


@instruction(types.float64, address)
def read_double(builder: Any, place: Any) -> Any:
    """One float64."""
    return read(builder, place, ir.DoubleType())


@instruction(Ints, Floats)
def bits_of(builder: Any, value: Any) -> Any:
    """The same bits, as integers."""
    return builder.bitcast(value, Ints.ir_type)


@instruction(types.int64, types.float32)
def float_to_bits(builder: Any, value: Any) -> Any:
    """The bits of a float32, as a signed integer of 32 bits."""
    return builder.sext(builder.bitcast(value, ir.IntType(32)), I64)


@inlined
def _ordered(bits):
    """Between a float32's bits and an integer that is ordered as the floats are; its own inverse."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@inlined
def _key(value, token):
    """An integer that is larger for a token that comes earlier: the larger number, then the lower id."""
    return (_ordered(float_to_bits(value)) << 32) | (_LOW_HALF - token)


@inlined
def _key_value(key):
    return bits_to_float(_ordered(key >> 32))


@inner
def _fill(source, count, mask, x):
    """Copy a row, forbid what the mask forbids, fill up to a whole block; whether a number is not one."""
    apart()
    nan = 0
    for i in range(0, count, 16):
        # -0 becomes 0, so that equal numbers have equal bits.
        v = add(load_part(source, i, count, False), floats(_ZERO))
        nan |= lanes_above(v, v)
        if mask != 0:
            v = keep_bits(v, read_half(mask + i // 8))
        store_floats(x + i * 4, v)
    for i in range(count, (count + _BLOCK - 1) // _BLOCK * _BLOCK):
        write_float(x + i * 4, _MINUS_INFINITY)
    return nan != 0


@inner
def _most(x, padded):
    """The largest number."""
    apart()
    a, b = floats(_MINUS_INFINITY), floats(_MINUS_INFINITY)
    for i in range(0, padded, 32):
        a, b = larger(load_floats(x + i * 4), a), larger(load_floats(x + i * 4 + 64), b)
    return max_lanes(larger(a, b))


@inner
def _edit(x, tokens, values, edits):
    """Put other numbers in the places of tokens that are allowed."""
    apart()
    for edit in range(edits):
        place = x + read_int64(tokens + edit * 8) * 4
        if read_float(place) > _MINUS_INFINITY:
            write_float(place, read_float(values + edit * 4) + _ZERO)


@inner
def _first(x, value):
    """The first token that has at least this number, which there is."""
    apart()
    i, bits = -16, 0
    while bits == 0:
        i += 16
        bits = 0xFFFF ^ lanes_above(floats(value), load_floats(x + i * 4))
    while not bits & 1:
        bits >>= 1
        i += 1
    return i


@inner
def _best_keys(x, count, wanted, heap):
    """Fill a heap with the keys of the so many best tokens, the last of them in front, and return that one."""
    apart()
    for place in range(wanted):
        write_int64(heap + place * 8, _LOWEST_KEY)
    for i in range(0, count, 16):
        # The lowest key's value is not a number, so that until the heap is full all lanes pass.
        bits = lanes_above(load_part(x, i, count, False), floats(_key_value(read_int64(heap))))
        lane = 0
        while bits != 0 and i + lane < count:
            if bits & 1:
                key = _key(read_float(x + (i + lane) * 4) + _ZERO, i + lane)
                if key > read_int64(heap):
                    _replace_front(heap, wanted, key)
            bits >>= 1
            lane += 1
    return read_int64(heap)


@inner
def _replace_front(heap, size, key):
    place = 0
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and read_int64(heap + (child + 1) * 8) < read_int64(heap + child * 8):
            child += 1
        if key <= read_int64(heap + child * 8):
            break
        write_int64(heap + place * 8, read_int64(heap + child * 8))
        place = child
    write_int64(heap + place * 8, key)


@inlined
def _inverse(temperature):
    # Beyond these bounds float32 would make no number of zero times infinity.
    return np.float32(min(max(1.0 / temperature, 1e-30), 1e30))


@inner
def _drop(x, padded, value, token):
    """Forbid all tokens but those before a place."""
    apart()
    for i in range(0, padded, 16):
        store_floats(x + i * 4, keep_before(load_floats(x + i * 4), value, token - i))


@inner
def _mass(x, padded, most, temperature):
    """The sum of `exp((x - most) / temperature)`."""
    apart()
    largest, inverse, total = floats(most), floats(_inverse(temperature)), 0.0
    for start in range(0, padded, _SUM):
        a, b = floats(_ZERO), floats(_ZERO)
        for i in range(start, min(padded, start + _SUM), 32):
            a = add(a, falling_exp(multiply(subtract(load_floats(x + i * 4), largest), inverse)))
            b = add(b, falling_exp(multiply(subtract(load_floats(x + i * 4 + 64), largest), inverse)))
        total += np.float64(sum_lanes(add(a, b)))
    return total


@inner
def _random(out, block, half, seed, sample, position):
    """Half of the random bits of a block's tokens, 32 for each."""
    apart()
    store_random(out + half * (_WORDS // 2), block * 16, position, sample, half, seed)


@inner
def _score(x, token, most, temperature, words):
    """A token's score; `words` are its block's random numbers."""
    apart()
    upper = np.int64(read_int32(words + token % _BLOCK * 4)) & _LOW_HALF
    lower = np.int64(read_int32(words + _WORDS // 2 + token % _BLOCK * 4)) & _LOW_HALF
    random = (np.float64((upper << 20) | (lower >> 12)) + 0.5) * 2.0**-52
    return (np.float64(read_float(x + token * 4)) - np.float64(most)) / temperature - np.log(-np.log1p(-random))


@inlined
def _candidates(v, most, scale, shift, words):
    """A bit for each lane whose random number is small enough for it to win."""
    bound = fma(subtract(v, floats(most)), floats(scale), floats(shift))
    return lanes_above(bound, to_floats(bits_of(to_floats(upper_24_bits(load_ints(words))))))


@inner
def _winner(x, padded, most, first, temperature, seed, sample, position, words):
    """The token of the largest score; `first` is the likeliest."""
    apart()
    _random(words, first // _BLOCK, 0, seed, sample, position)
    _random(words, first // _BLOCK, 1, seed, sample, position)
    best, token = _score(x, first, most, temperature, words), first
    scale = np.float32(_inverse(temperature) * _LOG2_BITS)
    for i in range(0, padded, _BLOCK):
        a, b = load_floats(x + i * 4), load_floats(x + i * 4 + 64)
        c, d = load_floats(x + i * 4 + 128), load_floats(x + i * 4 + 192)
        least = np.float32(most + (best - _MOST_NOISE) * temperature)
        if lanes_above(floats(least), larger(larger(a, b), larger(c, d))) == 0xFFFF:
            continue
        _random(words, i // _BLOCK, 0, seed, sample, position)
        shift = np.float32((_MARGIN - best) * _LOG2_BITS + _SHIFT)
        bits = _candidates(a, most, scale, shift, words) | (_candidates(b, most, scale, shift, words + 64) << 16)
        bits |= _candidates(c, most, scale, shift, words + 128) << 32
        bits |= _candidates(d, most, scale, shift, words + 192) << 48
        if bits == 0:
            continue
        _random(words, i // _BLOCK, 1, seed, sample, position)
        for lane in range(_BLOCK):
            if (bits >> lane) & 1:
                score = _score(x, i + lane, most, temperature, words)
                if score > best or (score == best and i + lane < token):
                    best, token = score, i + lane
    return token


# A row of the table that says what to draw: 8 bytes each.
_RECORD = struct.Struct("<6qQ2q3d")
(
    LOGITS, MASK, EDIT_TOKENS, EDIT_VALUES, EDITS, TOP_K, SEED, SAMPLE, POSITION, TEMPERATURE, TOP_P, MIN_P,
) = range(0, _RECORD.size, 8)  # fmt: skip


@inner
def _draw(row, count, x, words, heap):
    """The token of a row of the table; `x` is room for its copy, where what is dropped becomes minus infinity."""
    apart()
    padded = (count + _BLOCK - 1) // _BLOCK * _BLOCK
    is_nan = _fill(read_int64(row + LOGITS), count, read_int64(row + MASK), x)
    _edit(x, read_int64(row + EDIT_TOKENS), read_int64(row + EDIT_VALUES), read_int64(row + EDITS))
    most = _most(x, padded)
    if is_nan or most == _INFINITY:
        return NOT_FINITE
    if most == _MINUS_INFINITY:
        return NOTHING_ALLOWED
    first = _first(x, most)
    temperature, top_p, min_p = read_double(row + TEMPERATURE), read_double(row + TOP_P), read_double(row + MIN_P)
    if temperature == 0:
        return first
    if 0 < read_int64(row + TOP_K) < count:
        key = _best_keys(x, count, read_int64(row + TOP_K), heap)
        _drop(x, padded, _key_value(key), _LOW_HALF - (key & _LOW_HALF) + 1)
    share = top_p * _mass(x, padded, most, temperature) if top_p < 1 else 0.0
    if min_p > 0:
        least = np.float64(most) + temperature * np.log(min_p)
        # What equals a bound that was rounded down is below the exact one.
        _drop(x, padded, np.float32(least), 0 if np.float64(np.float32(least)) < least else padded)
    while True:
        seed, sample, position = read_int64(row + SEED), read_int64(row + SAMPLE), read_int64(row + POSITION)
        token = _winner(x, padded, most, first, temperature, seed, sample, position, words)
        if top_p >= 1 or token == first:
            return token
        _drop(x, padded, read_float(x + token * 4), token)
        if _mass(x, padded, most, temperature) < share:
            return token


# The arguments of both kernels, in order.
TABLE, STRIDE, COUNT, OUT, WANTED, ROWS, COUNTER, SCRATCH, SLOT = range(9)


def _draw_rows(arguments, phase, worker, workers):
    """Rows of the table `STRIDE` bytes apart; a token for each."""
    count = argument(arguments, COUNT)
    words = argument(arguments, SCRATCH) + worker * argument(arguments, SLOT)
    heap = words + _WORDS
    row = worker
    while row < argument(arguments, ROWS):
        record = argument(arguments, TABLE) + row * argument(arguments, STRIDE)
        token = _draw(record, count, heap + argument(arguments, WANTED) * 8, words, heap)
        write_int64(argument(arguments, OUT) + row * 8, token)
        row = next_unit(argument(arguments, COUNTER))


def _top_rows(arguments, phase, worker, workers):
    """Rows of numbers `STRIDE` bytes apart; for each the keys of its largest ones."""
    wanted, row = argument(arguments, WANTED), worker
    while row < argument(arguments, ROWS):
        place = argument(arguments, TABLE) + row * argument(arguments, STRIDE)
        _best_keys(place, argument(arguments, COUNT), wanted, argument(arguments, OUT) + row * wanted * 8)
        row = next_unit(argument(arguments, COUNTER))


def draw_tokens(logits_nW: Tensor, draws: Sequence[Draw]) -> list[int]:
    """See reference.draw_tokens: (n, W) float32, on the CPU.

    A row's token depends on that row and its draw alone.
    Cost: reads a row once and then a copy of it in the cache, two times (greedy) to some seven times (top_p).
    """
    n, W = logits_nW.shape
    assert len(draws) == n, f"{len(draws)} draws for {n} rows"
    logits_nW = logits_nW if logits_nW.stride(1) == 1 else logits_nW.contiguous()
    ids, values, table, start = *_all_edits(draws, W), b"", 0
    edit_tokens, edit_values = ids.ctypes.data, values.ctypes.data
    first, stride = logits_nW.data_ptr(), logits_nW.stride(0) * 4
    for row, draw in enumerate(draws):
        edits = len(draw.edits[0]) if draw.edits is not None else 0
        table += _RECORD.pack(
            first + row * stride, _mask_address(draw.mask, W),
            edit_tokens + start * 8, edit_values + start * 4, edits,
            draw.top_k, draw.seed, draw.sample_index, draw.position, draw.temperature, draw.top_p, draw.min_p,
        )  # fmt: skip
        start += edits
    wanted = max((draw.top_k for draw in draws if 0 < draw.top_k < W), default=0)
    slot = (_WORDS + wanted * 8 + (W + _BLOCK) * 4 + 63) // 64 * 64
    out = torch.empty(n, dtype=torch.int64)
    _run(_draw_rows, np.frombuffer(table, np.int64).ctypes.data, _RECORD.size, W, out, wanted, slot)
    return out.tolist()


def _all_edits(draws: Sequence[Draw], W: int) -> tuple[np.ndarray, np.ndarray]:
    """The edits of all rows, one row's behind the other's."""
    if all(draw.edits is None for draw in draws):
        return _NO_TOKENS, _NO_VALUES
    ids, values = zip((_NO_TOKENS, _NO_VALUES), *(draw.edits for draw in draws if draw.edits is not None), strict=True)
    all_ids, all_values = np.concatenate(ids), np.concatenate(values)
    assert (all_ids.dtype, all_values.dtype, len(all_ids)) == (np.int64, np.float32, len(all_values)), "bad edits"
    assert not ((all_ids < 0) | (all_ids >= W)).any(), f"an edit of a token outside 0 to {W - 1}"
    return all_ids, all_values


_NO_TOKENS, _NO_VALUES = np.empty(0, np.int64), np.empty(0, np.float32)


def _mask_address(mask: np.ndarray | None, W: int) -> int:
    if mask is None:
        return 0
    assert mask.flags.c_contiguous, "a mask with gaps"
    assert mask.view(np.int32).size * 32 >= W, f"a mask of {mask.nbytes * 8} bits for {W} tokens"
    return mask.ctypes.data


def top_tokens(values_nW: Tensor, count: int) -> Tensor:
    """See reference.top_tokens: (n, W) float32 on the CPU, without NaN. Cost: reads each row once."""
    n, W = values_nW.shape
    values_nW = values_nW if values_nW.stride(1) == 1 else values_nW.contiguous()
    keys = torch.empty(n, min(count, W), dtype=torch.int64)
    if keys.numel():
        _run(_top_rows, values_nW.data_ptr(), values_nW.stride(0) * 4, W, keys, keys.shape[1], 0)
    return int(_LOW_HALF) - (keys.sort(dim=1, descending=True).values & int(_LOW_HALF))


def _run(kernel: Any, place: int, stride: int, count: int, out: Tensor, wanted: int, slot: int) -> None:
    rows = len(out)
    workers = 1 if rows * count < _ALONE else min(all_workers(), rows)
    scratch, taken = torch.empty(workers * slot, dtype=torch.uint8), counters(1, workers)
    launch(
        kernel,
        (place, stride, count, out.data_ptr(), wanted, rows, taken.data_ptr(), scratch.data_ptr(), slot),
        workers=workers,
    )
