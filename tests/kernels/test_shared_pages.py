"""Column groups that go through pages of the cache together: each one's bits as if it were alone."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seamount.kernels.cpu import attention
from seamount.kernels.cpu.attention import COLUMNS, MOST_GROUPS
from seamount.kernels.cpu.launch import argument, launch
from seamount.kernels.cpu.rowwise import exp
from seamount.kernels.cpu.softmax import falling_exp, store_weights
from seamount.kernels.cpu.tiles import configure_tiles, release_tiles, tile_configuration
from seamount.kernels.cpu.vector import (
    bits_to_float,
    load_floats,
    store_bfloat16_pairs,
    store_floats,
)
from seamount.kernels.paged import PAGE

CONFIGURATION = torch.tensor(list(tile_configuration()), dtype=torch.uint8)
UNTOUCHED = 7.0


def _segment(arguments, phase, worker, workers):
    """attention.segment of rows that stand one after the other."""
    configure_tiles(argument(arguments, 0))
    row_bytes = argument(arguments, 3)
    attention.segment(
        argument(arguments, 1), argument(arguments, 2), row_bytes * PAGE, row_bytes, 0, argument(arguments, 4),
        argument(arguments, 5), argument(arguments, 6), argument(arguments, 7), argument(arguments, 8),
        argument(arguments, 9), argument(arguments, 10), bits_to_float(argument(arguments, 11)),
        argument(arguments, 12), argument(arguments, 13), argument(arguments, 14), argument(arguments, 15),
        argument(arguments, 16), 0, 0,
    )  # fmt: skip
    release_tiles()


def _weights(arguments, phase, worker, workers):
    """For each sixteen numbers: exp, falling_exp, and the two ways to round the latter with themselves to bfloat16."""
    for i in range(0, argument(arguments, 1) * 4, 64):
        v = load_floats(argument(arguments, 0) + i)
        out = argument(arguments, 2) + i * 4
        store_floats(out, exp(v))
        store_floats(out + 64, falling_exp(v))
        store_bfloat16_pairs(out + 128, exp(v), falling_exp(v))
        store_weights(out + 192, exp(v), falling_exp(v))


class Case(NamedTuple):
    """Rows (S, X) of which the key is the first part; the value begins at number `value_at`."""

    rows_SX: Tensor
    key_dim: int
    value_at: int
    value_dim: int


def states(case: Case, first: int, last: int, limits_GJ: Tensor, queries_G: Tensor) -> Tensor:
    """The states (groups, floats) of these groups together, after rows first .. last - 1."""
    groups = len(limits_GJ)
    size = attention.state_bytes.py_func(case.value_dim)
    out_GX = torch.full((groups, size // 4), UNTOUCHED)
    scratch = torch.empty(attention.scratch_bytes.py_func(case.key_dim, case.value_dim), dtype=torch.uint8)
    pages = torch.arange(-(-len(case.rows_SX) // PAGE))
    limits_GJ, queries_G = limits_GJ.int().contiguous(), queries_G.contiguous()
    scale = int(torch.tensor(0.25).view(torch.int32))
    launch(
        _segment,
        (
            CONFIGURATION.data_ptr(), case.rows_SX.data_ptr(), pages.data_ptr(), case.rows_SX.shape[1] * 2,
            case.key_dim, case.value_at * 2, case.value_dim, first, last, groups, limits_GJ.data_ptr(), scale,
            queries_G.data_ptr(), queries_G.stride(0) * 2, out_GX.data_ptr(), size, scratch.data_ptr(),
        ),
    )  # fmt: skip
    return out_GX


@pytest.mark.parametrize(
    ("key_dim", "value_at", "value_dim"), [(64, 64, 64), (96, 0, 64), (40, 40, 24), (72, 0, 72), (40, 0, 32)]
)
@given(
    first=st.sampled_from([0, 64]), seen=st.lists(st.integers(0, 200), min_size=1, max_size=MOST_GROUPS),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_groups_together_equal_each_alone(
    key_dim: int, value_at: int, value_dim: int, first: int, seen: list[int], seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    width, last = max(key_dim, value_at + value_dim), max(*seen, first + 1)
    rows_SX = torch.full((256, width), float("nan"), dtype=torch.bfloat16)
    rows_SX[:last] = torch.randn(last, width, generator=draw)
    case = Case(rows_SX, key_dim, value_at, value_dim)
    # Column j of a group sees a row less than column j + 1, and columns that would see none have no query.
    limits_GJ = (torch.tensor(seen)[:, None] - torch.arange(COLUMNS).flip(0) // 4).clamp(0)
    queries_G = torch.randn(len(seen), -(-key_dim // 32) * 512, generator=draw).bfloat16()
    together_GX = states(case, first, last, limits_GJ, queries_G)
    for group, rows in enumerate(seen):
        chosen = slice(group, group + 1)
        if rows <= first:
            assert (together_GX[group] == UNTOUCHED).all()
            continue
        alone_X = states(case, first, min(rows, last), limits_GJ[chosen], queries_G[chosen])[0]
        has_query = limits_GJ[group] > first
        for part_X in (together_GX[group], alone_X):
            assert part_X.isfinite().all()
        m_and_l, outputs = 2 * COLUMNS, (COLUMNS, -1)
        assert torch.equal(alone_X[:m_and_l], together_GX[group, :m_and_l])
        mine, theirs = (part[m_and_l:].view(outputs)[has_query] for part in (alone_X, together_GX[group]))
        assert torch.equal(mine[:, :value_dim], theirs[:, :value_dim])


def test_falling_exp_and_its_rounding_give_the_bits_of_the_general_ones() -> None:
    draw = torch.Generator().manual_seed(0)
    edges = torch.tensor([0.0, -0.0, -1e-45, -1e-38, -87.0, -86.99999, -87.00001, -88.0, -1e30, float("-inf")])
    halves = -(torch.arange(130) + 0.5) * 0.6931472  # between two powers of two
    spread = -torch.rand(1 << 16, generator=draw) * torch.tensor([1e-3, 1.0, 20.0, 100.0]).repeat(1 << 14)
    numbers = torch.cat((edges, halves, spread))
    numbers = torch.cat((numbers, torch.full((-len(numbers) % 16,), float("nan"))))
    out = torch.empty(len(numbers) // 16, 4, 16)
    launch(_weights, (numbers.data_ptr(), len(numbers), out.data_ptr()))
    exact, falling, pairs, weights = out.view(torch.int32).unbind(1)
    is_number = ~numbers.isnan().view(-1, 16)
    assert torch.equal(exact[is_number], falling[is_number])
    assert torch.equal(pairs[is_number], weights[is_number])
    assert out[:, 1][~is_number].isnan().all()
    assert (~is_number).any()
