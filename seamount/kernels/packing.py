"""Packed weights: integers in the order in which the kernels read them, with one float scale for each output row.

W[n, k] is scale[n] * w8[n, k], where w8 is an integer in -127..127. An activation row is integers q with one scale,
int8 but for the row's largest quads (`quantise_rows`), so a product is `scale_x * scale[n] * sum_k q[k] w8[n, k]`, and
the sum is exact in 32-bit integers over all of K.

Layout: W (N, K) is padded with zeros to multiples of 16 rows and 64 inputs. 16 rows are a block, 64 of its inputs a
tile; a tile is 16 vectors of 64 bytes. Vector v holds the inputs 4v..4v+3, at byte (n % 16) * 4 + k % 4.
  int8  a byte is w8 + 128; 1,024 bytes a tile.
  int4  w8 = (CODEBOOK[nibble] * g + 64) >> 7, with one int8 multiplier g for a group of 4 rows x 8 inputs. Line p of a
        tile, 64 bytes, holds vector 2p in its low and vector 2p + 1 in its high nibbles. A block is all its tiles'
        lines (512 bytes each), all their multipliers (32 each, at p * 4 + (n % 16) // 4), and zeros up to a multiple
        of 64.
Units: int8 takes 8 bits a weight, int4 4.25, both 4 bytes more for each row.
GGUF's formats q4_0, q4_1 and q8_0 keep their float scales for 32 inputs inside the blocks (group_packing.py); their
scale[n] is 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from seamount.errors import CheckpointError, ConfigError
from seamount.kernels import group_packing
from seamount.kernels.group_packing import GroupFormat

Format = Literal["int4", "int8"] | GroupFormat
FORMATS: tuple[Format, ...] = ("int4", "int8")  # what weights are packed as; the others are taken as they are
ROWS, INPUTS = 16, 64  # of a tile
QUAD = 4  # consecutive inputs that take a second byte together; at most one quad a tile of inputs does

# What int8 may reach up to, as shares of a row's largest number: 2^(-i / 4), rounded to float32.
REACHES = tuple(torch.tensor([2 ** (-i / 4) for i in range(21)], dtype=torch.float32).tolist())
LEAST_REACH = 6  # the first index worth its trouble: before it a finer scale gains less than a factor of 2.8
SMALLEST_TOP = float(torch.tensor(1e-30, dtype=torch.float32))  # rows below it have no large quads
LARGEST_CODE = round(127 / REACHES[-1])
MOST_INPUTS = (2**31 - 1) // (127 * (QUAD * LARGEST_CODE + (INPUTS - QUAD) * 127)) * INPUTS  # whose sums are int32

# The 16 levels of least squared error for groups of 32 nearly normal numbers under the best multiplier of either sign:
# Lloyd's iteration, with zero kept as a level so that a zero weight stays one. bench/quality.py repeats the comparison.
CODEBOOK = (-127, -101, -80, -62, -47, -34, -22, -11, 0, 11, 22, 34, 47, 63, 82, 107)

_FRACTION = 128  # w8 is a level times g over this
_PIECE = 1 << 16  # weights worked on at once: their float32 copies stay in a core's second-level cache
_HEADROOM = 118.0  # the largest |w8| at first: some room below 127 lets g grow beyond what the extreme asks for
_STRETCHES = (0.82, 0.92, 1.0, 1.08)  # how far the levels' end is put from the group's extreme, as a ratio


@dataclass(frozen=True, eq=False)
class Packed:
    """One packed weight, or a stack of them with the same shape; the layout stands at the top of this file.

    Shapes: blocks uint8 (..., row blocks, bytes of one), scale float32 (..., rows padded to 16).
    """

    format: Format
    rows: int
    columns: int
    blocks: Tensor
    scale: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight that this stands for: (..., N, K)."""
        return (*self.scale.shape[:-1], self.rows, self.columns)

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales."""
        return self.blocks.nbytes + self.scale.nbytes

    def __getitem__(self, place: int | slice | tuple[int | slice, ...]) -> Packed:
        """A part of a stack, over the same memory."""
        assert self.scale.ndim > (len(place) if isinstance(place, tuple) else 1), "an index into the rows themselves"
        return replace(self, blocks=self.blocks[place], scale=self.scale[place])


def block_bytes(format: Format, columns: int) -> int:
    """Bytes of one row block of a weight with so many inputs.

    Errors: ConfigError for an unknown format.
    """
    tiles = _ceil(columns, INPUTS)
    if format in group_packing.TILE_BYTES:
        return tiles * group_packing.TILE_BYTES[format]
    if _known(format) == "int8":
        return tiles * ROWS * INPUTS
    return _ceil(tiles * (512 + 32), 64) * 64


def packed_shapes(format: Format, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of `blocks` and `scale` for a weight of shape (..., N, K).

    Errors: ConfigError for an unknown format, fewer than two dimensions or one of size zero, or more inputs than
    MOST_INPUTS.
    """
    if len(shape) < 2 or min(shape) < 1:
        raise ConfigError(f"a weight to pack needs the shape (..., N, K) without a zero, not {tuple(shape)}")
    *stack, N, K = shape
    if K > MOST_INPUTS:
        raise ConfigError(
            f"a weight of shape {tuple(shape)} has {K} inputs, but a 32-bit sum is sure to hold only {MOST_INPUTS}; "
            "load the model without packing"
        )
    row_blocks = _ceil(N, ROWS)
    return (*stack, row_blocks, block_bytes(format, K)), (*stack, row_blocks * ROWS)


def packed(format: Format, shape: tuple[int, ...], blocks: Tensor, scale: Tensor) -> Packed:
    """The packed weight of shape (..., N, K) that these two tensors make up, which are taken as they are.

    Errors: ConfigError for a format that is unknown, CheckpointError for tensors that do not fit the shape.
    """
    wanted = packed_shapes(format, shape)
    for name, tensor, size, dtype in zip(
        ("blocks", "scale"), (blocks, scale), wanted, (torch.uint8, torch.float32), strict=True
    ):
        if tuple(tensor.shape) != size or tensor.dtype != dtype:
            raise CheckpointError(
                f"{name} of an {format} weight of shape {list(shape)} must be {dtype} {list(size)}, "
                f"not {tensor.dtype} {list(tensor.shape)}"
            )
    return Packed(format, shape[-2], shape[-1], blocks, scale)


def empty(format: Format, shape: tuple[int, ...]) -> Packed:
    """A packed weight whose memory is not yet filled; `pack_into` fills it, whole or in parts of the stack."""
    blocks_shape, scale_shape = packed_shapes(format, shape)
    return Packed(format, shape[-2], shape[-1], torch.empty(blocks_shape, dtype=torch.uint8), torch.empty(scale_shape))


def pack(weight_XNK: Tensor, format: Format) -> Packed:
    """Quantise a weight, or a stack of them, of any floating dtype: (..., N, K).

    int8 rounds to the nearest multiple of the row's largest magnitude / 127. int4 first sets the rows' scales so that
    the four rows of a group are equally large, tries several multipliers g for each group and keeps the one of least
    squared error, and at last fits each row's scale to its codes.
    Errors: ConfigError for a shape or format that cannot be packed, CheckpointError for a number that is not finite.
    Cost: int4 about 80 operations a weight, int8 4; memory the result and some megabytes.
    """
    out = empty(format, tuple(weight_XNK.shape))
    pack_into(weight_XNK, out)
    return out


def pack_into(weight_XNK: Tensor, out: Packed) -> None:
    """Quantise into memory that is there already, such as one expert's place in a stack: as `pack`."""
    _known(out.format)
    if tuple(weight_XNK.shape) != out.shape or not weight_XNK.is_floating_point():
        raise ConfigError(
            f"a floating weight of shape {list(out.shape)} is needed here, "
            f"not {weight_XNK.dtype} {list(weight_XNK.shape)}"
        )
    N, K = out.rows, out.columns
    fill = _fill_int4 if out.format == "int4" else _fill_int8
    blocks_XBY, scale_XN = out.blocks.view(-1, *out.blocks.shape[-2:]), out.scale.view(-1, out.scale.shape[-1])
    step = max(1, _PIECE // (_ceil(K, INPUTS) * INPUTS) // ROWS) * ROWS
    for number, weight_NK in enumerate(weight_XNK.detach().reshape(-1, N, K)):
        for first in range(0, N, step):
            rows_NK = torch.zeros(_ceil(min(step, N - first), ROWS) * ROWS, _ceil(K, INPUTS) * INPUTS)
            part_NK = weight_NK[first : first + step]
            rows_NK[: part_NK.shape[0], :K] = part_NK
            stop = first + rows_NK.shape[0]
            fill(rows_NK, blocks_XBY[number, first // ROWS : stop // ROWS], scale_XN[number, first:stop])


def codes(packed: Packed) -> Tensor:
    """The integers w8 of an int4 or int8 weight: (..., N, K) int8. The specification of both formats' layout."""
    _known(packed.format)
    blocks_XBY = packed.blocks.view(-1, packed.blocks.shape[-1])
    tiles = _ceil(packed.columns, INPUTS)
    if packed.format == "int8":
        # (block, tile, vector, row, 4 inputs)
        w8_BKVRI = (blocks_XBY.view(-1, tiles, 16, ROWS, 4).to(torch.int16) - 128).to(torch.int8)
        w8_XNK = w8_BKVRI.permute(0, 3, 1, 2, 4)
    else:
        # (block, tile, line, half = vector of the line, group of rows, row of the group, 4 inputs)
        line_BKPLRI = blocks_XBY[:, : tiles * 512].reshape(-1, tiles, 8, 4, 4, 4)
        nibble_BKPHLRI = torch.stack((line_BKPLRI & 15, line_BKPLRI >> 4), dim=3)
        g_BKPL = blocks_XBY[:, tiles * 512 : tiles * 544].reshape(-1, tiles, 8, 4).view(torch.int8).to(torch.int32)
        level = torch.tensor(CODEBOOK, dtype=torch.int32)[nibble_BKPHLRI.to(torch.int64)]
        w8 = (level * g_BKPL[:, :, :, None, :, None, None] + _FRACTION // 2) >> 7
        w8_XNK = w8.to(torch.int8).permute(0, 4, 5, 1, 2, 3, 6)
    whole = w8_XNK.reshape(*packed.scale.shape, tiles * INPUTS)
    return whole[..., : packed.rows, : packed.columns]


def unpack(packed: Packed) -> Tensor:
    """The weight that a packed one stands for, `scale[n] * w8[n, k]` or by its groups: (..., N, K) float32."""
    if packed.format in group_packing.TILE_BYTES:
        return group_packing.numbers(packed.format, packed.blocks, packed.rows, packed.columns)
    return codes(packed).float() * packed.scale[..., : packed.rows, None]


def quantise_rows(x_TD: Tensor) -> tuple[Tensor, Tensor]:
    """Activations as integers with one scale a row: int8, but for a row's largest quads, which need a second byte.

    A quad is the inputs 4v..4v+3. int8 reaches up to `limit`: the smallest of the row's largest magnitude times REACHES
    that leaves at most ceil(D / 64) quads with a number above it; the largest magnitude itself if that gains less than
    a factor of 2.8, or where it is below SMALLEST_TOP. With float32 operations alone, q = round(x * (127 / limit)),
    halves to even, and the scale is limit / 127. Where 127 / limit is not finite the codes are zeros; a row that is not
    finite has zeros and a scale that is not a number.

    Shapes: (T, D) of any floating dtype -> int16 (T, D), within -LARGEST_CODE..LARGEST_CODE, float32 (T).
    Source: large activations apart from the rest as in LLM.int8(), arXiv 2208.07339, section 3.2.
    """
    x_TD = x_TD.float()
    quad_TQ = _quads(x_TD)
    top_T, limit_T = quad_TQ.amax(-1), _limits(quad_TQ)
    # torch takes 127 / tensor for a product with the reciprocal, which rounds twice.
    factor_T = torch.full_like(limit_T, 127).div_(limit_T)
    factor_T = torch.where(factor_T.isfinite(), factor_T, 0)
    is_finite_T = top_T.isfinite()
    code_TD = (x_TD * factor_T[:, None]).round_().masked_fill_(~is_finite_T[:, None], 0)
    return code_TD.to(torch.int16), (limit_T / 127).masked_fill_(~is_finite_T, torch.nan)


def split_rows(x_TD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`quantise_rows` as kernels hold the codes: q = lower + 128 * upper, where upper is 0 outside of large quads.

    Shapes: (T, D) -> int8 (T, D) twice, float32 (T).
    """
    code_TD, scale_T = quantise_rows(x_TD)
    quad_TQ = _quads(x_TD.float())
    is_large_TD = (quad_TQ > _limits(quad_TQ)[:, None]).repeat_interleave(QUAD, dim=1)[:, : x_TD.shape[1]]
    upper_TD = torch.where(is_large_TD, code_TD + 64 >> 7, 0)
    return (code_TD - 128 * upper_TD).to(torch.int8), upper_TD.to(torch.int8), scale_T


def _quads(x_TD: Tensor) -> Tensor:
    """The largest magnitude of each quad: (T, 16 for each tile)."""
    padding = -x_TD.shape[1] % INPUTS
    return functional.pad(x_TD.abs(), (0, padding)).unflatten(1, (-1, QUAD)).amax(-1)


def _limits(quad_TQ: Tensor) -> Tensor:
    """Up to which magnitude the codes of each row take one byte."""
    top_T, most = quad_TQ.amax(-1), quad_TQ.shape[1] * QUAD // INPUTS
    # At most so many quads stand above a limit exactly if the next one in the order of size does not.
    next_T = quad_TQ.kthvalue(quad_TQ.shape[1] - most).values
    limit_T = top_T
    for reach in REACHES[LEAST_REACH:]:
        lower_T = top_T * reach
        limit_T = torch.where((next_T <= lower_T) & (top_T >= SMALLEST_TOP), lower_T, limit_T)
    return limit_T


def random_packed(shape: tuple[int, ...], format: Format, generator: torch.Generator, deviation: float) -> Packed:
    """Random packed weights of about this standard deviation: even codes, not what `pack` makes of normal numbers.

    Errors: as `packed_shapes`.
    Cost: 8 random bytes a draw, so about the speed of writing to memory.
    """
    out = empty(format, shape)
    # Sizes are multiples of 64, so the bytes can be drawn as 64-bit words.
    out.blocks.view(-1).view(torch.int64).random_(-(1 << 63), None, generator=generator)
    if format == "int8":
        # Bytes 1..255 stand for -127..127; the byte 0 would be -128.
        out.blocks.clamp_min_(1)
        spread = math.sqrt((255**2 - 1) / 12)
    else:
        tiles = _ceil(shape[-1], INPUTS)
        # A multiplier between 64 and 127, where the search puts most of those of normal weights, of either sign, so
        # that the mean is zero although the levels' is not.
        g = out.blocks[..., tiles * 512 : tiles * 544]
        g.copy_(torch.where(g < 128, (g & 63) | 64, 192 - (g & 63)))
        out.blocks[..., tiles * 544 :] = 0
        mean_g2 = sum(g * g for g in range(64, 128)) / 64
        spread = math.sqrt(sum(level * level for level in CODEBOOK) / 16 * mean_g2) / _FRACTION
    out.scale.fill_(deviation / spread)
    out.scale[..., shape[-2] :] = 0
    return out


def _fill_int8(rows_NK: Tensor, blocks_BY: Tensor, scale_N: Tensor) -> None:
    amax_N1 = _finite(rows_NK.abs().amax(1, keepdim=True))
    scale_N.copy_(amax_N1[:, 0] / 127)
    byte_NK = (rows_NK * torch.where(amax_N1 == 0, amax_N1, 127 / amax_N1)).round_().add_(128).to(torch.uint8)
    tiled = byte_NK.view(-1, ROWS, rows_NK.shape[1] // INPUTS, 16, 4).permute(0, 2, 3, 1, 4)
    blocks_BY.view(tiled.shape).copy_(tiled)


def _fill_int4(rows_NK: Tensor, blocks_BY: Tensor, scale_N: Tensor) -> None:
    N, K = rows_NK.shape
    scale_N1 = _first_scales(rows_NK)
    # (row of the group, half, input) first: sums over a group then run over whole vectors of groups.
    x_RHIG = (rows_NK / scale_N1).view(N // ROWS, 4, 4, K // INPUTS, 8, 2, 4).permute(2, 5, 6, 0, 3, 4, 1).contiguous()
    x_XG = x_RHIG.view(32, -1)
    g_G = _multipliers(x_XG)
    code_XG, w8_XG = _nearest(x_XG, g_G)
    square_N = (w8_XG * w8_XG).view(4, 8, N // ROWS, -1, 4).sum((1, 3)).permute(1, 2, 0).reshape(N)
    product_N = (w8_XG * x_XG).view(4, 8, N // ROWS, -1, 4).sum((1, 3)).permute(1, 2, 0).reshape(N)
    # Where all codes are zero the row is zero, and so is its scale.
    scale_N.copy_(torch.where(square_N > 0, scale_N1[:, 0] * product_N / square_N, square_N))
    tiles = K // INPUTS
    code_RHIBKPL = code_XG.view(4, 2, 4, N // ROWS, tiles, 8, 4)
    line_BKPLRI = (code_RHIBKPL[:, 0] | code_RHIBKPL[:, 1] << 4).permute(2, 3, 4, 5, 0, 1)
    blocks_BY[:, : tiles * 512] = line_BKPLRI.reshape(N // ROWS, -1)
    blocks_BY[:, tiles * 512 : tiles * 544] = g_G.to(torch.int8).view(torch.uint8).view(N // ROWS, -1)
    blocks_BY[:, tiles * 544 :] = 0


def _first_scales(rows_NK: Tensor) -> Tensor:
    """Scales under which the four rows of a group have one mean square, and none of them leaves the integers."""
    amax_N1 = _finite(rows_NK.abs().amax(1, keepdim=True))
    unit_N1 = torch.where(amax_N1 > 0, amax_N1, torch.ones_like(amax_N1))
    rms_N1 = torch.linalg.vector_norm(rows_NK / unit_N1, dim=1, keepdim=True) / math.sqrt(rows_NK.shape[1])
    # A row's largest number over its root mean square; the largest such ratio of the four rows counts for all of them.
    crest_N1 = torch.where(amax_N1 > 0, 1 / rms_N1, amax_N1)
    crest_N1 = crest_N1.view(-1, 4).amax(1, keepdim=True).expand(-1, 4).reshape(-1, 1)
    return torch.where(amax_N1 > 0, amax_N1 * (rms_N1 * crest_N1 / _HEADROOM), unit_N1)


def _multipliers(x_XG: Tensor) -> Tensor:
    """For each group of 32 numbers, in units of w8, the integer g of least squared error among the candidates."""
    low_G, high_G = x_XG.amin(0), x_XG.amax(0)
    extreme_G = torch.where(high_G > -low_G, high_G, low_G)
    # In units of w8: what is far below one is no number to find levels for, and its reciprocal might overflow.
    is_zero_G = extreme_G.abs() < 1e-3
    inverse_G = (2 / extreme_G).masked_fill_(is_zero_G, 0)
    best_G, g_G = torch.zeros_like(extreme_G), torch.zeros_like(extreme_G)
    place_XG, level_XG = torch.empty_like(x_XG), torch.empty_like(x_XG)
    slots_XG = torch.empty_like(x_XG, dtype=torch.int32)
    for stretch in _STRETCHES:
        for end in (CODEBOOK[0], CODEBOOK[-1]):
            _find_slots(x_XG, inverse_G * (end / stretch), place_XG, slots_XG)
            torch.index_select(_LEVELS, 0, slots_XG.view(-1), out=level_XG.view(-1))
            product_G = torch.mul(x_XG, level_XG, out=place_XG).sum(0)
            # With these levels g = product / square is the best multiplier, and takes product^2 / square off x^2.
            ratio_G = product_G / level_XG.square_().sum(0).clamp_(min=1)
            gain_G = product_G * ratio_G
            g_G = torch.where(gain_G > best_G, ratio_G, g_G)
            best_G = torch.maximum(best_G, gain_G)
    g_G = (g_G * _FRACTION).round()
    g_G = torch.where((g_G == 0) & ~is_zero_G, torch.ones_like(g_G), g_G)
    return g_G.clamp_(-127, 127)


def _nearest(x_XG: Tensor, g_G: Tensor) -> tuple[Tensor, Tensor]:
    """Each number's nearest level under its group's g: nibbles uint8, and what they stand for, w8, as float32."""
    factor_G = torch.where(g_G == 0, g_G, 2 * _FRACTION / g_G)
    place_XG, slots_XG = torch.empty_like(x_XG), torch.empty_like(x_XG, dtype=torch.int32)
    _find_slots(x_XG, factor_G, place_XG, slots_XG)
    level_XG = _LEVELS.index_select(0, slots_XG.view(-1)).view_as(x_XG)
    w8_XG = level_XG.mul_(g_G).add_(_FRACTION // 2).mul_(1 / _FRACTION).floor_()
    return _NIBBLES.index_select(0, slots_XG.view(-1)).view_as(x_XG), w8_XG


# Nearest levels by table: one entry for each half of a level's unit, as the borders between levels are halves.
_REACH = 512
_halves = (torch.arange(-_REACH, _REACH, dtype=torch.float32) + 0.5) / 2
_levels = torch.tensor(CODEBOOK, dtype=torch.float32)
_NIBBLES = torch.bucketize(_halves, (_levels[1:] + _levels[:-1]) / 2).to(torch.uint8)
_LEVELS = _levels[_NIBBLES.to(torch.int64)]


def _find_slots(x_XG: Tensor, factor_G: Tensor, place_XG: Tensor, slots_XG: Tensor) -> None:
    """Where in the tables the numbers x * factor / 2 stand, into `slots`; beyond the ends, at the ends."""
    torch.mul(x_XG, factor_G, out=place_XG).add_(_REACH).clamp_(0, 2 * _REACH - 1)
    slots_XG.copy_(place_XG)


def _finite(amax_N1: Tensor) -> Tensor:
    if not torch.isfinite(amax_N1).all():
        raise CheckpointError("a weight holds a number that is not finite, and cannot be packed; fetch the file again")
    # Too small for its reciprocal to be a float32: such a row is zero beside any other.
    return torch.where(amax_N1 < 1e-30, torch.zeros_like(amax_N1), amax_N1)


def _known(format: Format) -> Format:
    if format not in FORMATS:
        raise ConfigError(f"format {format!r} is not one of {', '.join(FORMATS)}")
    return format


def _ceil(count: int, size: int) -> int:
    return -(-count // size)
