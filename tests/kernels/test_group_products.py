"""GGUF's own weights in packed form: the same numbers, and products that equal the reference bit for bit."""

import os
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from seamount.errors import CheckpointError
from seamount.kernels import packing
from seamount.kernels.cpu import activations, group_products
from seamount.kernels.cpu.group_filling import fill
from seamount.kernels.cpu.launch import argument, launch
from seamount.kernels.cpu.packed_blocks import row_bytes
from seamount.kernels.cpu.panels import PAIR_BYTES
from seamount.kernels.cpu.products import dequantised
from seamount.kernels.cpu.step import BITS
from seamount.kernels.cpu.target import TARGET, available_paths
from seamount.kernels.cpu.vector import store_floats
from seamount.kernels.group_packing import GROUP_FORMATS, GroupFormat, parts
from seamount.kernels.packing import Packed, unpack
from seamount.kernels.reference import packed_product
from seamount.kernels.reference.packed import _fma


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stored(format: GroupFormat, weight_NK: torch.Tensor) -> torch.Tensor:
    """Rows of a GGUF's blocks."""
    return torch.from_numpy(gguf.quants.quantize(weight_NK.numpy(), gguf.GGMLQuantizationType[format.upper()]))


def packed(format: GroupFormat, raw_NY: torch.Tensor, columns: int) -> Packed:
    """Those rows, packed as they are."""
    weight = packing.empty(format, (len(raw_NY), columns))
    fill([raw_NY], torch.arange(len(raw_NY)), weight)
    return weight


def multiply(arguments, phase, me, threads):
    """Quantise every row, and multiply it with every row block."""
    x, count, columns, act, notes, note_step = (
        argument(arguments, 0), argument(arguments, 1), argument(arguments, 2), argument(arguments, 3),
        argument(arguments, 4), argument(arguments, 5),
    )  # fmt: skip
    bits, blocks, scales, nb, starts, sums, out = (
        argument(arguments, 6), argument(arguments, 7), argument(arguments, 8), argument(arguments, 9),
        argument(arguments, 10), argument(arguments, 11), argument(arguments, 12),
    )  # fmt: skip
    kb, rows = (columns + 63) // 64, 1 if count == 1 else 16
    size = row_bytes(bits, kb)
    for token in range(count):
        place = act + token // rows * kb * rows * 64 + token % rows * 64
        row = x + token * ((columns + 15) // 16 * 64)
        activations.quantise(row, 64, columns, place, rows * 64, notes + token * note_step)
    group_products.group_starts(bits, act, rows * 64, count, kb, starts)
    for first in range(0, nb, 2):
        second = min(first + 1, nb - 1)
        group_products.group_pair_sums(
            bits, blocks + first * size, blocks + second * size, act, rows * 64, notes, note_step, count, kb, starts,
            sums, PAIR_BYTES,
        )  # fmt: skip
        for token in range(count):
            for half in range(second - first + 1):
                place = sums + token // 16 * PAIR_BYTES + token % 16 * 64 + half * 1024
                y = dequantised(bits, place, notes + token * note_step, scales + (first + half) * 64)
                store_floats(out + (token * nb + first + half) * 64, y)


def product(x_TK: torch.Tensor, weight: Packed) -> torch.Tensor:
    """`packed_product` by the kernels."""
    T, K = x_TK.shape
    tiles, nb = -(-K // 64), weight.scale.shape[-1] // 16
    padded_TK = torch.full((T, -(-K // 16) * 16), float("nan"))
    padded_TK[:, :K] = x_TK
    notes = torch.zeros(T, activations.note_bytes.py_func(tiles), dtype=torch.uint8)
    act, starts = torch.zeros(-(-T // 16) * 16 * tiles * 64, dtype=torch.int8), torch.empty(2 * tiles * T)
    sums, out = torch.full((-(-T // 16), 2, 16, 16), float("nan")), torch.full((T, nb * 16), float("nan"))
    first = [padded_TK.data_ptr(), T, K, act.data_ptr(), notes.data_ptr(), notes.shape[1]]
    matrix = [BITS[weight.format], weight.blocks.data_ptr(), weight.scale.data_ptr(), nb]
    launch(multiply, [*first, *matrix, starts.data_ptr(), sums.data_ptr(), out.data_ptr()])
    return out[:, : weight.rows]


def uneven(T: int, K: int, seed: int) -> torch.Tensor:
    """Activations of which a few channels are far larger than the rest."""
    x_TK = normal(T, K, seed=seed)
    x_TK[:, :: max(1, K // 3)] *= 20
    return x_TK


@pytest.mark.parametrize("format", GROUP_FORMATS)
def test_packing_keeps_every_number(format: GroupFormat) -> None:
    weight_NK = normal(37, 160)
    weight_NK[3] = 0
    weight_NK[5] *= 1e-5  # scales that float16 holds as denormals
    raw_NY = stored(format, weight_NK)
    wanted_NK = torch.from_numpy(gguf.quants.dequantize(raw_NY.numpy(), gguf.GGMLQuantizationType[format.upper()]))
    weight = packed(format, raw_NY, 160)
    assert torch.equal(unpack(weight), wanted_NK)
    assert weight.nbytes == packing.block_bytes(format, 160) * 3 + 48 * 4
    turned = packing.empty(format, (20, 160))
    order_N = torch.arange(36, -1, -1)[:20]
    fill([raw_NY[:30].contiguous(), raw_NY[30:].contiguous()], order_N, turned)
    assert torch.equal(unpack(turned), wanted_NK[order_N])


def test_the_place_of_a_code_is_the_layouts() -> None:
    """Q4_1's row 17, input 43: the second block, group 1, vector 10, so the low half of line 5, row 1, byte 3."""
    raw_NY = torch.zeros(18, 40, dtype=torch.uint8)
    raw_NY[17, 20:24] = torch.tensor([1.5, -2.0], dtype=torch.float16).view(torch.uint8)
    raw_NY[17, 24 + 11] = 7  # input 32 + 11
    weight = packed("q4_1", raw_NY, 64)
    assert weight.blocks[1, 5 * 64 + 1 * 4 + 3] == 7
    assert weight.blocks[1, 512 + 32 + 2 : 512 + 32 + 4].view(torch.float16) == 1.5
    assert weight.blocks[1, 576 + 32 + 2 : 576 + 32 + 4].view(torch.float16) == -2
    assert int(weight.blocks.count_nonzero()) == 3
    assert unpack(weight)[17, 43] == 7 * 1.5 - 2


@pytest.mark.parametrize("format", GROUP_FORMATS)
def test_a_scale_that_is_not_finite_is_refused(format: GroupFormat) -> None:
    raw_NY = stored(format, normal(20, 64))
    raw_NY[19, :2] = torch.tensor([float("inf")], dtype=torch.float16).view(torch.uint8)
    with pytest.raises(CheckpointError, match="not finite"):
        packed(format, raw_NY, 64)


@pytest.mark.parametrize("format", GROUP_FORMATS)
@pytest.mark.parametrize("T", [1, 2, 4, 5, 16, 17, 40])
def test_kernels_equal_the_reference_bit_for_bit(format: GroupFormat, T: int) -> None:
    for N, K in ((1, 32), (33, 160), (48, 576)):
        weight = packed(format, stored(format, normal(N, K, seed=K)), K)
        x_TK = uneven(T, K, seed=T)
        _, upper_TK, _ = packing.split_rows(x_TK)
        assert upper_TK.any() or K == 32
        assert torch.equal(product(x_TK, weight), packed_product(x_TK, weight))


@pytest.mark.parametrize("format", GROUP_FORMATS)
def test_a_token_alone_equals_itself_among_others(format: GroupFormat) -> None:
    weight = packed(format, stored(format, normal(40, 320)), 320)
    x_TK = uneven(70, 320, seed=1)
    together_TN = product(x_TK, weight)
    for token in (0, 15, 16, 33, 69):
        assert torch.equal(product(x_TK[token : token + 1], weight), together_TN[token : token + 1])


@pytest.mark.parametrize("format", GROUP_FORMATS)
def test_a_product_is_the_weights_but_for_the_activations_rounding(format: GroupFormat) -> None:
    weight = packed(format, stored(format, normal(40, 320)), 320)
    x_TK = uneven(9, 320, seed=1)
    code_TK, scale_T = packing.quantise_rows(x_TK)
    wanted_TN = (code_TK.double() * scale_T[:, None].double()) @ unpack(weight).double().T
    assert (product(x_TK, weight) - wanted_TN).norm() <= 1e-6 * wanted_TN.norm()
    assert (wanted_TN - x_TK.double() @ unpack(weight).double().T).norm() <= 0.01 * wanted_TN.norm()


def digest() -> bytes:
    """Products of every format, as bytes."""
    parts = []
    for format in GROUP_FORMATS:
        weight_NK = normal(33, 160)
        weight_NK[5] *= 1e-5
        weight = packed(format, stored(format, weight_NK), 160)
        parts += [product(uneven(T, 160, seed=T), weight).numpy().tobytes() for T in (1, 3, 20)]
    return b"".join(parts)


_CHILD = (
    "import sys; sys.path.insert(0, {tests!r}); import test_group_products as t; sys.stdout.buffer.write(t.digest())"
)
_SLOW = [pytest.param(path, marks=pytest.mark.slow) for path in ("avx512", "avxvnni", "portable")]


@pytest.mark.parametrize("path", ["avx2", *_SLOW])
def test_every_path_gives_the_same_bits(path: str) -> None:
    if path not in available_paths() or path == TARGET.path:
        pytest.skip(f"this machine's paths are {', '.join(available_paths())}, and {TARGET.path} is the default")
    child = _CHILD.format(tests=str(Path(__file__).parent))
    result = subprocess.run(
        [sys.executable, "-c", child], env=os.environ | {"SEAMOUNT_CPU": path}, capture_output=True, check=False
    )
    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout == digest()


def test_the_references_fused_multiply_add_rounds_once() -> None:
    generator = np.random.default_rng(0)
    left, right, plus = (generator.standard_normal(20_000).astype(np.float32) for _ in range(3))
    plus[::2] *= np.float32(2.0**-40)
    plus[1::4] = -(left * right)[1::4]
    found = _fma(*(torch.from_numpy(part) for part in (left, right, plus))).numpy()
    # The same in 64 bits of mantissa and more, where there are such numbers.
    exact = left.astype(np.longdouble) * right.astype(np.longdouble) + plus.astype(np.longdouble)
    assert np.array_equal(found, exact.astype(np.float32))
    # A case that rounding to float64 first gets wrong: it would end on a tie, and fall to the even side.
    tie = torch.tensor([1 + 2.0**-12]), torch.tensor([1 + 2.0**-12]), torch.tensor([2.0**-80])
    assert _fma(*tie)[0] == 1 + 2.0**-11 + 2.0**-23


def test_parts_are_what_the_file_says() -> None:
    raw_NY = stored("q8_0", normal(3, 32))
    code_NK, scale_NG, minimum_NG = parts("q8_0", packed("q8_0", raw_NY, 32).blocks, 3, 32)
    assert torch.equal(code_NK.to(torch.int16) - 128, raw_NY[:, 2:].view(torch.int8).to(torch.int16))
    assert torch.equal(scale_NG, raw_NY[:, :2].contiguous().view(torch.float16).float())
    assert minimum_NG is None
