"""Matrices in FP8 (e4m3) with one float32 multiplier for each 128 x 128 block, as DeepSeek publishes them.

The stored name of the multipliers, `weight_scale_inv`, misleads: weight = fp8 value * scale_inv.
Source: DeepSeek-V3, section 3.3; V3.1 rounds the multipliers up to powers of two.
"""

from __future__ import annotations

import torch

from seamount.errors import CheckpointError, CorruptFile, TensorMismatch

BLOCK = 128
LARGEST_E4M3 = 448.0
SMALLEST_SCALE = torch.finfo(torch.float32).tiny


def scale_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """The shape of the multipliers for a matrix of this shape."""
    rows, columns = shape
    return -(-rows // BLOCK), -(-columns // BLOCK)


def check_fp8_scale(
    name: str, shape: tuple[int, ...], scale_dtype: torch.dtype, scale_inv_shape: tuple[int, ...]
) -> None:
    """Refuse multipliers that do not fit the weight called `name`.

    Errors: TensorMismatch for a wrong shape, CheckpointError for a wrong dtype.
    """
    if len(shape) != 2:
        raise TensorMismatch(f"{name} is FP8 of shape {list(shape)}; only matrices carry {BLOCK} x {BLOCK} blocks")
    if scale_inv_shape != scale_shape(shape):
        raise TensorMismatch(
            f"{name}_scale_inv has shape {list(scale_inv_shape)}; "
            f"{name} of shape {list(shape)} needs {list(scale_shape(shape))}"
        )
    if scale_dtype != torch.float32:
        raise CheckpointError(f"{name}_scale_inv is {scale_dtype}; float32 is needed")


def decode_fp8_rows(weight_FD: torch.Tensor, scale_inv_GG: torch.Tensor, out_FD: torch.Tensor, group: int) -> None:
    """Decode the 128 rows of block row `group` into the same rows of `out_FD`, computing in float32.

    Shapes: weight_FD float8_e4m3fn, scale_inv_GG float32 with G = ceil(F / 128), ceil(D / 128).
    """
    rows = slice(group * BLOCK, min((group + 1) * BLOCK, weight_FD.shape[0]))
    columns = weight_FD.shape[1]
    scale_D = scale_inv_GG[group].repeat_interleave(BLOCK)[:columns]
    if not torch.isfinite(scale_D).all():
        raise CorruptFile(f"an FP8 multiplier of block row {group} is not a finite number; fetch the file again")
    out_FD[rows].copy_(weight_FD[rows].to(torch.float32).mul_(scale_D))


def decode_fp8(
    weight_FD: torch.Tensor, scale_inv_GG: torch.Tensor, dtype: torch.dtype = torch.bfloat16
) -> torch.Tensor:
    """The matrix as `dtype`.

    Errors: TensorMismatch or CheckpointError for multipliers that do not fit.
    Cost: the result and 128 rows in float32.
    """
    check_fp8_scale("weight", tuple(weight_FD.shape), scale_inv_GG.dtype, tuple(scale_inv_GG.shape))
    out_FD = torch.empty(weight_FD.shape, dtype=dtype)
    for group in range(scale_inv_GG.shape[0]):
        decode_fp8_rows(weight_FD, scale_inv_GG, out_FD, group)
    return out_FD


def encode_fp8(weight_FD: torch.Tensor, *, power_of_two_scales: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """The matrix as FP8 and its multipliers: each block's largest magnitude becomes 448, the largest e4m3 number.

    Shapes: returns float8_e4m3fn (F, D) and float32 (ceil(F / 128), ceil(D / 128)).
    Errors: CheckpointError when the matrix has no two dimensions or holds a number that is not finite.
    """
    if weight_FD.dim() != 2 or not torch.isfinite(weight_FD).all():
        raise CheckpointError(f"only a matrix of finite numbers can become FP8, not shape {list(weight_FD.shape)}")
    groups = scale_shape(tuple(weight_FD.shape))
    code_FD = torch.empty(weight_FD.shape, dtype=torch.float8_e4m3fn)
    scale_inv_GG = torch.ones(groups, dtype=torch.float32)
    for group in range(groups[0]):
        rows = slice(group * BLOCK, min((group + 1) * BLOCK, weight_FD.shape[0]))
        block_FD = weight_FD[rows].to(torch.float32)
        padded_FD = torch.nn.functional.pad(block_FD, (0, groups[1] * BLOCK - block_FD.shape[1]))
        largest_G = padded_FD.view(block_FD.shape[0], groups[1], BLOCK).abs().amax(dim=(0, 2))
        scale_G = _scales(largest_G, power_of_two_scales)
        scaled_FD = block_FD / scale_G.repeat_interleave(BLOCK)[: block_FD.shape[1]]
        code_FD[rows] = scaled_FD.clamp_(-LARGEST_E4M3, LARGEST_E4M3).to(torch.float8_e4m3fn)
        scale_inv_GG[group] = scale_G
    return code_FD, scale_inv_GG


def _scales(largest_G: torch.Tensor, power_of_two_scales: bool) -> torch.Tensor:
    scale_G = (largest_G / LARGEST_E4M3).clamp_min(SMALLEST_SCALE)
    if power_of_two_scales:
        mantissa_G, exponent_G = torch.frexp(scale_G)
        # frexp gives mantissas in [0.5, 1): exactly 0.5 is a power of two already and is not rounded up.
        scale_G = torch.ldexp(torch.ones_like(scale_G), exponent_G - (mantissa_G == 0.5).to(exponent_G.dtype))
    return torch.where(largest_G == 0, torch.ones_like(scale_G), scale_G)
