"""Packed weights: the layout by hand, the error's bounds, and what is refused."""

import math

import pytest
import torch

from seamount.errors import CheckpointError, ConfigError
from seamount.kernels import packing
from seamount.kernels.packing import CODEBOOK, FORMATS, codes, pack, random_packed, unpack


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def byte_of(packed: packing.Packed, n: int, k: int) -> int:
    """The byte in the int8 layout of W[n, k], or the line's byte in the int4 layout, worked out one by one."""
    tile, vector, inside = k // 64, k % 64 // 4, n % 16 * 4 + k % 4
    if packed.format == "int8":
        return int(packed.blocks[n // 16, tile * 1024 + vector * 64 + inside])
    byte = int(packed.blocks[n // 16, tile * 512 + vector // 2 * 64 + inside])
    return byte >> 4 if vector % 2 else byte & 15


def multiplier_of(packed: packing.Packed, n: int, k: int) -> int:
    tiles = math.ceil(packed.columns / 64)
    place = tiles * 512 + k // 64 * 32 + k % 64 // 8 * 4 + n % 16 // 4
    byte = int(packed.blocks[n // 16, place])
    return byte - 256 if byte > 127 else byte


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (16, 64), (17, 65), (48, 130), (33, 200)])
def test_each_number_lies_where_the_layout_says(shape: tuple[int, int]) -> None:
    weight_NK = normal(*shape)
    for format in FORMATS:
        packed = pack(weight_NK, format)
        w8_NK = codes(packed)
        for n in range(shape[0]):
            for k in range(shape[1]):
                code = byte_of(packed, n, k)
                four = (CODEBOOK[code & 15] * multiplier_of(packed, n, k) + 64) >> 7 if format == "int4" else 0
                expected = code - 128 if format == "int8" else four
                assert int(w8_NK[n, k]) == expected
        assert torch.equal(unpack(packed), w8_NK.float() * packed.scale[: shape[0], None])


def test_a_small_int8_weight_by_hand() -> None:
    weight_NK = torch.zeros(2, 66)
    weight_NK[1, 0], weight_NK[1, 5], weight_NK[1, 65] = 254.0, -127.0, 2.0
    packed = pack(weight_NK, "int8")
    assert packed.blocks.shape == (1, 2048)
    assert packed.scale.tolist() == [0.0, 2.0, *[0.0] * 14]
    # Row 1 stands at bytes 4..7 of each vector: input 0 in vector 0, 5 in vector 1, 65 in the second tile's vector 0.
    stored = {4: 127, 64 + 5: -64, 1024 + 5: 1}
    # 63.5 goes to the even neighbour; every other byte is zero with its bias.
    assert {place: int(byte) - 128 for place, byte in enumerate(packed.blocks[0]) if byte != 128} == stored


def test_a_small_int4_weight_by_hand() -> None:
    # One group, rows 4..7 and inputs 72..79: the second tile's line 1. Equal numbers, so nothing is lost.
    weight_NK = torch.zeros(8, 80)
    for row, column in ((4, 72), (5, 74), (6, 76), (7, 78)):
        weight_NK[row, column] = 3.0
    packed = pack(weight_NK, "int4")
    assert packed.blocks.shape == (1, 2 * 512 + 64)
    multipliers = packed.blocks[0, 1024:].view(torch.int8)
    assert multipliers.nonzero().flatten().tolist() == [32 + 1 * 4 + 1]
    level = 0 if multipliers[37] < 0 else 15
    # A zero is level 8. Inputs 72..75 are the low nibbles, 76..79 the high ones; row 4 begins at byte 16 of its line.
    low, high = 8 << 4 | level, level << 4 | 8
    stored = {512 + 64 + 16: low, 512 + 64 + 20 + 2: low, 512 + 64 + 24: high, 512 + 64 + 28 + 2: high}
    assert {place: int(byte) for place, byte in enumerate(packed.blocks[0, :1024]) if byte != 0x88} == stored
    assert torch.allclose(unpack(packed), weight_NK)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (16, 64), (64, 576), (2, 40, 100), (3, 2, 17, 70)])
def test_the_error_stays_within_the_formats_bounds(shape: tuple[int, ...]) -> None:
    weight = normal(*shape) * torch.exp(normal(*shape[:-1], 1, seed=1))
    eight, four = pack(weight, "int8"), pack(weight, "int4")
    assert eight.shape == four.shape == shape
    step = weight.abs().amax(-1, keepdim=True) / 127
    assert ((unpack(eight) - weight).abs() <= step * 0.5001).all()
    # No group may lose more than the coarsest gap of its levels around its extreme.
    assert (unpack(four) - weight).norm() <= 0.09 * weight.norm()


def test_int4_of_normal_weights_loses_what_16_levels_must() -> None:
    weight_NK = normal(256, 1024)
    error = float((unpack(pack(weight_NK, "int4")) - weight_NK).norm() / weight_NK.norm())
    # The best 16 levels without any multiplier reach 9.75 % (Max 1960); a multiplier for 32 numbers gains on that.
    assert 0.070 < error < 0.076


def test_a_row_of_outliers_does_not_hurt_its_neighbours() -> None:
    weight_NK = normal(64, 512)
    loud_NK = weight_NK.clone()
    loud_NK[::4] *= 1000
    plain, loud = unpack(pack(weight_NK, "int4")), unpack(pack(loud_NK, "int4"))
    loud[::4] /= 1000
    assert (loud - weight_NK).norm() <= 1.03 * (plain - weight_NK).norm()


def test_a_stack_is_packed_as_its_members() -> None:
    weight_EGFD = normal(3, 2, 20, 72)
    for format in FORMATS:
        whole = pack(weight_EGFD, format)
        one = pack(weight_EGFD[1, 1], format)
        assert torch.equal(whole.blocks[1, 1], one.blocks)
        assert torch.equal(whole.scale[1, 1], one.scale)
        piecewise = packing.empty(format, (3, 2, 20, 72))
        for expert in range(3):
            for half in range(2):
                packing.pack_into(weight_EGFD[expert, half].bfloat16().float(), piecewise[expert, half])
        assert torch.equal(piecewise.blocks, pack(weight_EGFD.bfloat16(), format).blocks)


def test_rows_of_one_weight_do_not_depend_on_how_many_there_are() -> None:
    # More than one piece of the work: 16 rows of 20,000 inputs are one piece each.
    weight_NK = normal(48, 20_000)
    for format in FORMATS:
        assert torch.equal(pack(weight_NK, format).blocks[1:2], pack(weight_NK[16:32], format).blocks)


@pytest.mark.parametrize("format", FORMATS)
def test_zeros_stay_zeros(format: packing.Format) -> None:
    weight_NK = normal(20, 70)
    weight_NK[3] = 0
    weight_NK[:, 5] = 0
    found = unpack(pack(weight_NK, format))
    assert not found[3].any()
    assert not found[:, 5].any()
    assert not unpack(pack(torch.zeros(4, 9), format)).any()
    assert torch.isfinite(unpack(pack(torch.full((4, 9), 1e-38), format))).all()


@pytest.mark.parametrize("format", FORMATS)
def test_random_weights_are_repeatable_and_of_the_deviation_asked_for(format: packing.Format) -> None:
    first, again = (random_packed((2, 40, 640), format, torch.Generator().manual_seed(3), 0.02) for _ in range(2))
    assert torch.equal(first.blocks, again.blocks)
    other = random_packed((2, 40, 640), format, torch.Generator().manual_seed(4), 0.02)
    assert not torch.equal(first.blocks, other.blocks)
    assert first.shape == (2, 40, 640)
    assert float(unpack(first).std()) == pytest.approx(0.02, rel=0.03)
    assert abs(float(unpack(first).mean())) < 0.0005
    assert int(codes(first).to(torch.int16).min()) >= -127
    assert first.scale[..., 40:].eq(0).all()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(format: packing.Format, bad: float) -> None:
    weight_NK = normal(20, 70)
    weight_NK[17, 69] = bad
    with pytest.raises(CheckpointError, match="not finite"):
        pack(weight_NK, format)


def test_shapes_and_formats_that_cannot_be_packed_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"int3.*int4, int8"):
        pack(normal(4, 4), "int3")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"\(\.\.\., N, K\)"):
        pack(normal(4), "int8")
    with pytest.raises(ConfigError, match="without a zero"):
        pack(torch.zeros(0, 4), "int4")
    with pytest.raises(ConfigError, match=r"torch\.int32"):
        pack(torch.zeros(4, 4, dtype=torch.int32), "int4")
    # The most that one row's sum can come to: the largest code for a quad in each tile, and 127 for all others.
    worst = 127 * (4 * packing.LARGEST_CODE + 60 * 127)
    assert worst * packing.MOST_INPUTS // 64 < 2**31 <= worst * (packing.MOST_INPUTS // 64 + 1)
    packing.packed_shapes("int4", (16, packing.MOST_INPUTS))
    with pytest.raises(ConfigError, match=rf"{packing.MOST_INPUTS + 1} inputs.*32-bit"):
        packing.packed_shapes("int8", (16, packing.MOST_INPUTS + 1))
    whole = pack(normal(20, 70), "int4")
    with pytest.raises(CheckpointError, match=r"blocks of an int8 weight of shape \[20, 70\]"):
        packing.packed("int8", (20, 70), whole.blocks, whole.scale)
    with pytest.raises(CheckpointError, match="scale of an int4 weight"):
        packing.packed("int4", (20, 70), whole.blocks, whole.scale.half())
    assert torch.equal(unpack(packing.packed("int4", (20, 70), whole.blocks, whole.scale)), unpack(whole))
