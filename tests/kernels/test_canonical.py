"""The canonical arithmetic: a row's bits depend on that row alone, and its values are the reference's.

Every property is tested on rows among others, at odd places, with one thread and with several.
"""

import numba
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seamount import kernels
from seamount.kernels import reference

DTYPES = [torch.float32, torch.bfloat16]
TOLERANCE = {torch.float32: {"rtol": 2e-6, "atol": 2e-5}, torch.bfloat16: {"rtol": 2**-6, "atol": 2**-6}}
THREADS = sorted({1, min(2, numba.config.NUMBA_NUM_THREADS)})
few = settings(max_examples=15, deadline=None)


def values(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def same(ours: Tensor, theirs: Tensor) -> bool:
    """Equal bits; NaN equals NaN."""
    return ours.dtype is theirs.dtype and torch.equal(bits(ours), bits(theirs))


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.int16 if tensor.dtype is torch.bfloat16 else torch.int32)


class Threads:
    """As many threads as said, and afterwards as many as before."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __enter__(self) -> None:
        self.before = numba.get_num_threads()
        numba.set_num_threads(self.count)

    def __exit__(self, *_: object) -> None:
        numba.set_num_threads(self.before)


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    T=st.integers(1, 70), N=st.integers(1, 100), K=st.integers(1, 200), start=st.integers(0, 69), has_bias=st.booleans()
)
@few
def test_a_row_of_linear_is_the_same_alone_and_among_others(
    dtype: torch.dtype, T: int, N: int, K: int, start: int, has_bias: bool
) -> None:
    x_TD, weight_FD = values(T, K, dtype=dtype), values(N, K, dtype=dtype, seed=1)
    bias_F = values(N, dtype=dtype, seed=2) if has_bias else None
    start %= T
    whole = kernels.linear(x_TD, weight_FD, bias_F)
    for threads in THREADS:
        with Threads(threads):
            assert same(kernels.linear(x_TD[start:], weight_FD, bias_F), whole[start:])
            assert same(kernels.linear(x_TD[start], weight_FD, bias_F), whole[start])
    # Nor does an output depend on the weight's other rows.
    half = slice(N // 2, None)
    assert same(kernels.linear(x_TD, weight_FD[half], None if bias_F is None else bias_F[half]), whole[:, half])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("T", "N", "K"), [(1, 1, 1), (3, 5, 7), (16, 33, 100), (17, 70, 65), (40, 96, 577), (5, 31, 2048)]
)
def test_linear_equals_the_reference(dtype: torch.dtype, T: int, N: int, K: int) -> None:
    x_TD, bias_F = values(T, K, dtype=dtype), values(N, dtype=dtype, seed=2)
    weight_FD = (values(N, K, dtype=dtype, seed=1) / K**0.5).to(dtype)
    for bias in (None, bias_F):
        torch.testing.assert_close(
            kernels.linear(x_TD, weight_FD, bias), reference.linear(x_TD, weight_FD, bias), **TOLERANCE[dtype]
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_of_nan_stays_in_its_row(dtype: torch.dtype) -> None:
    x_TD, weight_FD = values(20, 50, dtype=dtype), values(40, 50, dtype=dtype, seed=1)
    poisoned = x_TD.clone()
    poisoned[3] = float("nan")
    kept = [row for row in range(20) if row != 3]
    out = kernels.linear(poisoned, weight_FD)
    assert out[3].isnan().all()
    assert same(out[kept], kernels.linear(x_TD, weight_FD)[kept])


def row_operations(dtype: torch.dtype, D: int) -> dict[str, tuple]:
    """Each operation on single rows: ours, the reference's, and its inputs that have one row a token."""
    weight_D = values(D, dtype=dtype, seed=3)
    both = {}
    for name, module in (("ours", kernels), ("theirs", reference)):
        both[name] = {
            "rms_norm": lambda x, module=module: module.rms_norm(x, weight_D, 1e-5),
            "swiglu": lambda x, module=module: module.swiglu(torch.cat((x, x.flip(-1)), dim=-1)),
            "log_softmax": lambda x, module=module: module.log_softmax(x.float()),
            "sigmoid": lambda x, module=module: module.sigmoid(x),
        }
    return {name: (both["ours"][name], both["theirs"][name]) for name in both["ours"]}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["rms_norm", "swiglu", "log_softmax", "sigmoid"])
@pytest.mark.parametrize(("T", "D"), [(1, 1), (9, 33), (300, 130), (5, 577)])
def test_an_operation_on_rows(dtype: torch.dtype, name: str, T: int, D: int) -> None:
    ours, theirs = row_operations(dtype, D)[name]
    x_TD = values(T, D, dtype=dtype) * 3
    whole = ours(x_TD)
    torch.testing.assert_close(whole, theirs(x_TD), rtol=TOLERANCE[dtype]["rtol"], atol=4e-6)
    for threads in THREADS:
        with Threads(threads):
            assert same(ours(x_TD[T // 2 :]), whole[T // 2 :])
            assert same(ours(x_TD[T // 3]), whole[T // 3])
    # A part of wider rows is read where it stands.
    wide = values(T, 2, D + 7, dtype=dtype)
    assert same(ours(wide[:, 1, 5 : 5 + D]), ours(wide[:, 1, 5 : 5 + D].contiguous()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("R", [2, 10, 64, 70])
def test_rotate_has_the_reference_s_bits(dtype: torch.dtype, interleaved: bool, R: int) -> None:
    x_THR, angles_TR = values(23, 5, R, dtype=dtype), values(23, R // 2, dtype=torch.float32)
    cos_TR, sin_TR = angles_TR.cos(), angles_TR.sin()
    whole = kernels.rotate(x_THR[:, 1:4], cos_TR, sin_TR, interleaved=interleaved)
    assert same(whole, reference.rotate(x_THR[:, 1:4], cos_TR, sin_TR, interleaved=interleaved))
    assert same(kernels.rotate(x_THR[7:, 2:3], cos_TR[7:], sin_TR[7:], interleaved=interleaved), whole[7:, 1:2])


def experts(dtype: torch.dtype, T: int, K: int, E: int, D: int, F: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(T)
    chosen_TK = torch.stack([torch.randperm(E, generator=generator)[:K] for _ in range(T)])
    gate_up, down = values(E, 2 * F, D, dtype=dtype, seed=1), values(E, D, F, dtype=dtype, seed=2)
    weight_TK = values(T, K, dtype=torch.float32, seed=3).abs()
    return values(T, D, dtype=dtype), chosen_TK, weight_TK, (gate_up / D**0.5).to(dtype), (down / F**0.5).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("T", "K", "E", "D", "F"), [(1, 2, 4, 33, 17), (5, 3, 8, 48, 20), (70, 2, 4, 64, 40), (40, 6, 16, 65, 96)]
)
def test_experts_are_the_reference_s_and_each_token_its_own(
    dtype: torch.dtype, T: int, K: int, E: int, D: int, F: int
) -> None:
    x_TD, chosen_TK, weight_TK, *weights = experts(dtype, T, K, E, D, F)
    whole = kernels.grouped_experts(x_TD, chosen_TK, weight_TK, *weights)
    expected = reference.grouped_experts(x_TD, chosen_TK, weight_TK, *weights)
    torch.testing.assert_close(whole, expected, **TOLERANCE[dtype])
    for threads in THREADS:
        with Threads(threads):
            for part in (slice(T // 2, None), slice(0, 1), slice(T - 1, T)):
                found = kernels.grouped_experts(x_TD[part], chosen_TK[part], weight_TK[part], *weights)
                assert same(found, whole[part])


def test_an_expert_that_does_not_exist_is_refused() -> None:
    x_TD, chosen_TK, weight_TK, *weights = experts(torch.float32, 3, 2, 4, 8, 8)
    chosen_TK[1, 1] = 4
    with pytest.raises(AssertionError, match="0 to 3"):
        kernels.grouped_experts(x_TD, chosen_TK, weight_TK, *weights)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("T", "H", "N", "K"), [(1, 1, 1, 1), (3, 4, 33, 24), (20, 3, 70, 64), (37, 2, 40, 129)])
def test_each_head_has_its_own_product(dtype: torch.dtype, T: int, H: int, N: int, K: int) -> None:
    x_THK, weight = values(T, H, K, dtype=dtype), (values(H, 2 * N + 1, K, dtype=dtype, seed=1) / K**0.5).to(dtype)
    for weight_HNK in (weight[:, N + 1 :], weight[:, :N].transpose(1, 2).contiguous().transpose(1, 2)):
        whole = kernels.head_linear(x_THK, weight_HNK)
        torch.testing.assert_close(whole, reference.head_linear(x_THK, weight_HNK), **TOLERANCE[dtype])
        for head in range(H):
            assert same(whole[:, head], kernels.linear(x_THK[:, head], weight_HNK[head]))
        for threads in THREADS:
            with Threads(threads):
                assert same(kernels.head_linear(x_THK[T // 2 :], weight_HNK), whole[T // 2 :])
