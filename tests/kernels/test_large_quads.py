"""Rows with large quads in the compiled kernels: codes and notes, and products by the packed bytes and by panels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seamount.kernels import reference
from seamount.kernels.cpu.activations import END, note_bytes, quantise
from seamount.kernels.cpu.launch import argument, launch
from seamount.kernels.cpu.mixing import STORE, products
from seamount.kernels.cpu.products import product_bytes
from seamount.kernels.cpu.tiles import configure_tiles, release_tiles, tile_configuration
from seamount.kernels.packing import Format, pack, quantise_rows

CONFIGURATION = torch.tensor(list(tile_configuration()), dtype=torch.uint8)
NAN = float("nan")


def _quantise(arguments, phase, worker, workers):
    quantise(
        argument(arguments, 0), argument(arguments, 1), argument(arguments, 2), argument(arguments, 3),
        argument(arguments, 4), argument(arguments, 5),
    )  # fmt: skip


def _multiply(arguments, phase, worker, workers):
    """blocks, scales, bits, nb, kb, count, act, rows, notes, note_step, out, stride, scratch, tile configuration"""
    configure_tiles(argument(arguments, 13))
    products(
        argument(arguments, 2), argument(arguments, 0), argument(arguments, 1), argument(arguments, 3),
        argument(arguments, 4), 0, (argument(arguments, 3) + 1) // 2, argument(arguments, 3), argument(arguments, 5),
        argument(arguments, 6), argument(arguments, 7), argument(arguments, 8), argument(arguments, 9),
        argument(arguments, 10), argument(arguments, 11), 0, STORE, argument(arguments, 12),
    )  # fmt: skip
    release_tiles()


def aligned(nbytes: int, fill: int = 0) -> Tensor:
    """Bytes that begin at a cache line."""
    memory = torch.full((nbytes + 64,), fill, dtype=torch.uint8)
    return memory[-memory.data_ptr() % 64 :][:nbytes]


def quantised(x_TD: Tensor, rows: int) -> tuple[Tensor, Tensor, int]:
    """Activation tiles of 1 or 16 tokens, and the notes, whose ends nothing may reach."""
    T, D = x_TD.shape
    kb = -(-D // 64)
    step = note_bytes.py_func(kb)
    act, notes = aligned(-(-T // rows) * rows * kb * 64), aligned(T * step + 64, 77)
    for token in range(T):
        row = torch.full((-(-D // 16) * 16,), NAN)
        row[:D] = x_TD[token]
        place = act.data_ptr() + token // rows * kb * rows * 64 + token % rows * 64
        launch(_quantise, [row.data_ptr(), 64, D, place, rows * 64, notes.data_ptr() + token * step])
    assert (notes[T * step :] == 77).all()
    return act, notes, step


def rows_with_outliers(T: int, D: int, seed: int) -> Tensor:
    """Some rows with no large quad, some with one, some with as many as there may be."""
    generator = torch.Generator().manual_seed(seed)
    x_TD = torch.randn(T, D, generator=generator)
    x_TD[1::3, D // 2] *= 200
    x_TD[2::3] *= torch.exp(1.5 * torch.randn(x_TD[2::3].shape, generator=generator))
    return x_TD


@settings(max_examples=40, deadline=None)
@given(D=st.integers(1, 400), seed=st.integers(0, 1000), size=st.sampled_from([1.0, 1e-29, 1e-37, 0.0, 1e30]))
def test_codes_and_notes_are_the_definition_s(D: int, seed: int, size: float) -> None:
    x_TD = rows_with_outliers(3, D, seed) * size
    code_TD, scale_T = quantise_rows(x_TD)
    act, notes, step = quantised(x_TD, 1)
    for token in range(3):
        found_D = act.view(3, -1)[token].view(torch.int8).long()
        note = notes[token * step :][:step].view(torch.int32).tolist()
        assert notes[token * step :][:4].view(torch.float32).item() == scale_T[token].item()
        place = 2
        while note[place] != END:
            upper = torch.tensor([note[place + 1]], dtype=torch.int32).view(torch.int8).long()
            found_D[4 * note[place] : 4 * note[place] + 4] += 128 * upper
            place += 2
        assert (place - 2) // 2 <= -(-D // 64)
        assert found_D[:D].tolist() == code_TD[token].tolist()
        assert not found_D[D:].any()
        assert note[1] == 128 * int(code_TD[token].sum())


@pytest.mark.parametrize("format", ["int4", "int8"])
@pytest.mark.parametrize(("N", "K"), [(80, 200), (48, 576), (33, 64)])
@pytest.mark.parametrize("T", [1, 2, 3, 4, 5, 17, 40])
def test_products_take_the_second_bytes(format: Format, N: int, K: int, T: int) -> None:
    weight = pack(torch.randn(N, K, generator=torch.Generator().manual_seed(N)), format)
    x_TK = rows_with_outliers(max(T, 3), K, T)[-T:]
    rows = 1 if T == 1 else 16
    act, notes, step = quantised(x_TK, rows)
    nb, kb = weight.scale.numel() // 16, -(-K // 64)
    out_TN, scratch = torch.full((T, nb * 16), NAN), aligned(product_bytes.py_func(-(-T // 16) * 16) + 4096)
    blocks = aligned(weight.blocks.numel()).copy_(weight.blocks.view(-1))
    launch(
        _multiply,
        [
            blocks.data_ptr(), weight.scale.data_ptr(), 4 if format == "int4" else 8, nb, kb, T, act.data_ptr(), rows,
            notes.data_ptr(), step, out_TN.data_ptr(), nb * 64, scratch.data_ptr(), CONFIGURATION.data_ptr(),
        ],
    )  # fmt: skip
    assert (quantise_rows(x_TK)[0].abs() > 127).any()
    assert torch.equal(out_TN[:, :N], reference.packed.packed_product(x_TK, weight))
