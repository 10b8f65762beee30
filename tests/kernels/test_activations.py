"""Activations as integers: the definition one number at a time, the second byte's share, the error, and the edges."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seamount.kernels import reference
from seamount.kernels.packing import LARGEST_CODE, LEAST_REACH, REACHES, SMALLEST_TOP, codes, pack, quantise_rows


def slowly(x_D: np.ndarray) -> tuple[list[int], np.float32]:
    """One row by the definition: every reach is tried and its quads are counted."""
    quads = [x_D[first : first + 4] for first in range(0, len(x_D), 4)]
    allowed = -(-len(x_D) // 64)
    top = max(abs(x) for x in x_D)
    chosen = 0
    for number in range(21):
        limit = top * np.float32(2 ** (-number / 4))
        if sum(max(abs(x) for x in quad) > limit for quad in quads) <= allowed:
            chosen = number
    if chosen < 6 or top < np.float32(1e-30):
        chosen = 0
    limit = top * np.float32(2 ** (-chosen / 4))
    with np.errstate(all="ignore"):
        factor = np.float32(127) / limit
    # round() of Python's own rounds halves to even.
    row = [round(float(x * factor)) if np.isfinite(factor) else 0 for x in x_D]
    return row, limit / np.float32(127)


def check(x_TD: torch.Tensor) -> None:
    """Every row is the definition's; few quads are large, and all codes near their numbers and in two bytes."""
    code_TD, scale_T = quantise_rows(x_TD)
    assert code_TD.dtype == torch.int16
    assert scale_T.dtype == torch.float32
    for x_D, code_D, scale in zip(x_TD.float().numpy(), code_TD.tolist(), scale_T.numpy(), strict=True):
        row, expected = slowly(x_D)
        assert code_D == row
        assert scale == expected
        is_large = [max(map(abs, row[first : first + 4])) > 127 for first in range(0, len(row), 4)]
        assert sum(is_large) <= -(-len(row) // 64)
        upper = [(q + 64) >> 7 for q in row]
        assert all(-64 <= q - 128 * high <= 63 and abs(high) <= 32 for q, high in zip(row, upper, strict=True))
        assert max(map(abs, row)) <= LARGEST_CODE
        if abs(x_D).max() >= SMALLEST_TOP:
            # Three roundings to float32 stand between a number and what its code means.
            slack = 0.5 + 2**-22 * np.abs(row)
            assert (np.abs(np.float64(row) * scale - x_D) <= np.float64(scale) * slack).all()


@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(1, 300),
    seed=st.integers(0, 10_000),
    outliers=st.lists(st.tuples(st.integers(0, 299), st.floats(-8, 12)), max_size=24),
    size=st.sampled_from([1.0, 1e-28, 3e-30, 1e-36, 1e-40, 1e30]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_rows_are_the_definition_s(
    width: int, seed: int, outliers: list[tuple[int, float]], size: float, dtype: torch.dtype
) -> None:
    x_TD = torch.randn(2, width, generator=torch.Generator().manual_seed(seed))
    for place, power in outliers:
        x_TD[0, place % width] = -(2.0**power) if place % 2 else 2.0**power
    check((x_TD * size).to(dtype))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0, 1, -1, 3, *REACHES, *(-reach for reach in REACHES)]), min_size=1, max_size=200))
def test_numbers_exactly_at_a_limit_are_not_above_it(row: list[float]) -> None:
    check(torch.tensor([row]) * 5.3)


def test_small_rows_by_hand() -> None:
    ties_D = [127.0, 0.5, 1.5, -2.5] + [127.0] * 4  # two quads at the top, so that none may be large
    halves_D = [-2.0, 1.0, 0.25, 0.0, 2.0, 0.0, 0.0, 0.0]
    code_TD, scale_T = quantise_rows(torch.tensor([ties_D, halves_D, [0.0] * 8]))
    assert code_TD.tolist() == [[127, 0, 2, -2, 127, 127, 127, 127], [-127, 64, 16, 0, 127, 0, 0, 0], [0] * 8]
    assert scale_T.tolist() == pytest.approx([1.0, 2 / 127, 0.0])


def test_one_huge_quad_costs_the_others_little() -> None:
    # 64 inputs allow one large quad. The finest reach is the largest number's 32nd part.
    x_D = torch.full((64,), 127.0)
    x_D[8:12] = torch.tensor([32 * 127.0, -4000.0, 64.0, -65.0])
    code_TD, scale_T = quantise_rows(x_D[None])
    assert scale_T.tolist() == [1.0]
    assert code_TD[0].tolist() == x_D.tolist()
    # A second one is one too many, and a third takes nothing more.
    for place in (20, 40):
        x_D[place] = 1000.0
        code_TD, scale_T = quantise_rows(x_D[None])
        assert scale_T.tolist() == pytest.approx([32 * REACHES[8]])
        assert int((code_TD.abs() > 127).sum()) == 2


def test_reaches_that_gain_too_little_are_not_taken() -> None:
    x_TD = torch.tensor(REACHES[LEAST_REACH - 1 : LEAST_REACH + 1])[:, None].repeat(1, 64)
    x_TD[:, 0] = 1
    code_TD, _ = quantise_rows(x_TD)
    assert code_TD[0, :2].tolist() == [127, 53]
    assert code_TD[1, :2].tolist() == [359, 127]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_row_that_is_not_finite_has_no_scale_and_hurts_no_other(bad: float) -> None:
    x_TD = torch.randn(3, 100, generator=torch.Generator().manual_seed(1))
    code_TD, scale_T = quantise_rows(x_TD)
    x_TD[1, 70] = bad
    with_bad_TD, scale_with_bad_T = quantise_rows(x_TD)
    assert scale_with_bad_T[1].isnan()
    assert not with_bad_TD[1].any()
    for row in (0, 2):
        assert torch.equal(with_bad_TD[row], code_TD[row])
        assert scale_with_bad_T[row] == scale_T[row]


@pytest.mark.parametrize("format", ["int4", "int8"])
def test_a_product_takes_the_whole_code(format: str) -> None:
    generator = torch.Generator().manual_seed(2)
    weight = pack(torch.randn(20, 200, generator=generator), format)  # type: ignore[arg-type]
    x_TK = torch.randn(3, 200, generator=generator)
    x_TK[:, 7] = torch.tensor([300.0, 50.0, 1.0])
    code_TK, scale_T = quantise_rows(x_TK)
    assert code_TK.abs().amax(1).tolist()[0] == LARGEST_CODE
    w8_NK, found_TN = codes(weight), reference.packed.packed_product(x_TK, weight)
    for t in range(3):
        for n in range(20):
            total = sum(q * w for q, w in zip(code_TK[t].tolist(), w8_NK[n].tolist(), strict=True))
            expected = np.float32(total) * scale_T[t].numpy() * weight.scale[n].numpy()
            assert found_TN[t, n].numpy() == expected


def test_no_rows_at_all_and_rows_of_any_stride() -> None:
    code_TD, scale_T = quantise_rows(torch.zeros(0, 70))
    assert code_TD.shape == (0, 70)
    assert scale_T.shape == (0,)
    x_TD = torch.randn(64, 6, generator=torch.Generator().manual_seed(3)).T
    for turned, straight in zip(quantise_rows(x_TD), quantise_rows(x_TD.contiguous()), strict=True):
        assert torch.equal(turned, straight)
