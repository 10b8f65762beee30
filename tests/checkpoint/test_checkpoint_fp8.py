"""FP8 matrices with block multipliers."""

import pytest
import torch
from safetensors.torch import save_file

from seamount.checkpoint import decode_fp8, encode_fp8, open_tensors
from seamount.checkpoint.fp8 import scale_shape
from seamount.errors import CheckpointError, CorruptFile, TensorMismatch

SHAPES = [(1, 1), (128, 128), (129, 127), (576, 300), (64, 1000), (257, 5)]


def plain_decode(weight_FD: torch.Tensor, scale_inv_GG: torch.Tensor) -> torch.Tensor:
    out_FD = weight_FD.to(torch.float64)
    for row in range(scale_inv_GG.shape[0]):
        for column in range(scale_inv_GG.shape[1]):
            rows, columns = slice(row * 128, row * 128 + 128), slice(column * 128, column * 128 + 128)
            out_FD[rows, columns] *= scale_inv_GG[row, column].item()
    return out_FD


def representable(shape: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Random FP8 codes with a 448 in each block, and powers of two as multipliers."""
    generator = torch.Generator().manual_seed(shape[0] * 1000 + shape[1])
    code_FD = (torch.randn(shape, generator=generator) * 100).clamp(-448, 448)
    code_FD[::128, ::128] = 448
    exponent_GG = torch.randint(-20, 20, scale_shape(shape), generator=generator)
    return code_FD.to(torch.float8_e4m3fn), torch.ldexp(torch.ones(exponent_GG.shape), exponent_GG)


@pytest.mark.parametrize("shape", SHAPES)
def test_decode_equals_the_plain_loop(shape):
    code_FD, _ = representable(shape)
    scale_inv_GG = torch.rand(scale_shape(shape)) + 0.1
    expected_FD = plain_decode(code_FD, scale_inv_GG)
    assert torch.equal(decode_fp8(code_FD, scale_inv_GG, torch.float32), expected_FD.float())
    assert torch.equal(decode_fp8(code_FD, scale_inv_GG), expected_FD.float().bfloat16())


@pytest.mark.parametrize("power_of_two_scales", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_representable_numbers_come_back_exactly(shape, power_of_two_scales):
    code_FD, scale_inv_GG = representable(shape)
    weight_FD = decode_fp8(code_FD, scale_inv_GG, torch.float32)
    again_FD, scale_again_GG = encode_fp8(weight_FD, power_of_two_scales=power_of_two_scales)
    assert torch.equal(scale_again_GG, scale_inv_GG)
    assert torch.equal(again_FD.view(torch.uint8), code_FD.view(torch.uint8))


def test_rounding_error_is_half_a_step():
    weight_FD = torch.randn(200, 300)
    decoded_FD = decode_fp8(*encode_fp8(weight_FD), torch.float32)
    # e4m3 keeps three bits after the leading one; below its smallest normal number the step is fixed at 2**-9.
    bound_FD = weight_FD.abs() * 2**-4 * 1.001 + weight_FD.abs().max() / 448 * 2**-10
    assert ((decoded_FD - weight_FD).abs() <= bound_FD).all()


def test_power_of_two_scales_are_rounded_up():
    weight_FD = torch.randn(130, 130) * 3e-5
    _, scale_inv_GG = encode_fp8(weight_FD, power_of_two_scales=True)
    _, exact_GG = encode_fp8(weight_FD)
    assert (torch.frexp(scale_inv_GG)[0] == 0.5).all()
    assert ((scale_inv_GG >= exact_GG) & (scale_inv_GG < 2 * exact_GG)).all()


@pytest.mark.parametrize("power_of_two_scales", [False, True])
def test_zero_and_tiny_blocks_stay_finite(power_of_two_scales):
    weight_FD = torch.zeros(128, 256)
    weight_FD[:, 128:] = 1e-44
    code_FD, scale_inv_GG = encode_fp8(weight_FD, power_of_two_scales=power_of_two_scales)
    assert scale_inv_GG[0, 0] == 1
    assert (scale_inv_GG > 0).all()
    assert (decode_fp8(code_FD, scale_inv_GG, torch.float32).abs() <= 1e-37).all()


def test_encode_refuses_what_has_no_fp8_form():
    with pytest.raises(CheckpointError, match="finite"):
        encode_fp8(torch.tensor([[1.0, float("inf")]]))
    with pytest.raises(CheckpointError, match="matrix"):
        encode_fp8(torch.ones(3))


def test_directory_shows_one_decoded_tensor(tmp_path):
    code_FD, scale_inv_GG = representable((300, 200))
    save_file({"x.weight": code_FD, "x.weight_scale_inv": scale_inv_GG}, tmp_path / "model.safetensors")
    with open_tensors(tmp_path) as source:
        assert source.names() == ["x.weight"]
        assert source.dtype("x.weight") == torch.bfloat16
        assert source.nbytes == 300 * 200 * 2
        assert torch.equal(source.read("x.weight"), decode_fp8(code_FD, scale_inv_GG))
        strided = torch.zeros(200, 300).T
        source.read_into("x.weight", strided)
        assert torch.equal(strided, decode_fp8(code_FD, scale_inv_GG, torch.float32))
        with pytest.raises(CheckpointError, match="no tensor"):
            source.read("x.weight_scale_inv")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"x.weight": torch.ones(4, 4).to(torch.float8_e4m3fn)}, "x.weight is FP8 without x.weight_scale_inv"),
        ({"x.weight_scale_inv": torch.ones(1, 1)}, "belongs to no FP8 weight"),
        ({"x.weight": torch.ones(4, 4), "x.weight_scale_inv": torch.ones(1, 1)}, "belongs to no FP8 weight"),
        (
            {"x.weight": torch.ones(4, 129).to(torch.float8_e4m3fn), "x.weight_scale_inv": torch.ones(1, 1)},
            r"needs \[1, 2\]",
        ),
        (
            {"x.weight": torch.ones(4).to(torch.float8_e4m3fn), "x.weight_scale_inv": torch.ones(1, 1)},
            "only matrices",
        ),
        (
            {"x.weight": torch.ones(4, 4).to(torch.float8_e4m3fn), "x.weight_scale_inv": torch.ones(1, 1).half()},
            "float32 is needed",
        ),
    ],
)
def test_unpaired_tensors_are_named(tmp_path, tensors, message):
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(TensorMismatch, match=message):
        open_tensors(tmp_path)


def test_multiplier_that_is_no_number(tmp_path):
    tensors = {"x.weight": torch.ones(4, 4).to(torch.float8_e4m3fn), "x.weight_scale_inv": torch.tensor([[torch.nan]])}
    save_file(tensors, tmp_path / "model.safetensors")
    with open_tensors(tmp_path) as source, pytest.raises(CorruptFile, match="not a finite number"):
        source.read("x.weight")
