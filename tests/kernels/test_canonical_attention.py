"""Canonical attention, gradients of all canonical operations, and equal bits on every path of the processor."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_canonical import DTYPES, THREADS, Threads, bits, experts, same, values
from torch import Tensor

from seamount import kernels
from seamount.kernels import reference
from seamount.kernels.cpu.target import TARGET, available_paths

Attention = Callable[[Tensor, Tensor], Tensor]


def attention(kind: str, module: object, G: int, N: int) -> Attention:
    """An attention of queries (T, H, N) over cached rows (S, 2 G N), the latent kind over their first N."""
    if kind == "latent":
        return lambda q, rows: module.latent_attention(q, rows[:, :N], N - 3, N**-0.5)

    def grouped(q: Tensor, rows: Tensor) -> Tensor:
        rows_SGN = rows.unflatten(1, (2 * G, N))
        return module.causal_attention(q, rows_SGN[:, :G], rows_SGN[:, G:], N**-0.5)

    return grouped


def poisoned(rows: Tensor) -> Tensor:
    """The rows as a cache holds them: behind them there are more, and not numbers."""
    return torch.cat((rows, torch.full((70, rows.shape[1]), float("nan"), dtype=rows.dtype)))[: len(rows)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["latent", "grouped"])
@given(
    S=st.integers(1, 150), heads=st.sampled_from([(1, 1), (4, 2), (9, 3), (20, 1)]), N=st.sampled_from([8, 24, 64]),
    cuts=st.lists(st.integers(1, 149), max_size=4),
)  # fmt: skip
@settings(max_examples=10, deadline=None)
def test_a_sequence_is_the_same_whole_in_chunks_and_token_by_token(
    dtype: torch.dtype, kind: str, S: int, heads: tuple[int, int], N: int, cuts: list[int]
) -> None:
    H, G = heads
    attend = attention(kind, kernels, G, N)
    q_SHN, rows_SX = values(S, H, N, dtype=dtype), poisoned(values(S, 2 * G * N, dtype=dtype, seed=1))
    whole = attend(q_SHN, rows_SX)
    borders = sorted({0, S, *(cut for cut in cuts if cut < S)})
    for first, last in [*pairwise(borders), *((token, token + 1) for token in range(0, S, 13))]:
        with Threads(THREADS[first % len(THREADS)]):
            assert same(attend(q_SHN[first:last], rows_SX[:last]), whole[first:last])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["latent", "grouped"])
def test_a_long_sequence_is_the_same_however_its_rows_are_divided(dtype: torch.dtype, kind: str) -> None:
    """Beyond 512 rows a single token's work is divided among threads."""
    S, H, N = 1300, 4, 32
    attend = attention(kind, kernels, 2, N)
    q_THN, rows_SX = values(40, H, N, dtype=dtype), values(S, 4 * N, dtype=dtype, seed=1)
    whole = attend(q_THN, rows_SX)
    for threads in THREADS:
        with Threads(threads):
            assert same(attend(q_THN[-1:], rows_SX), whole[-1:])
            assert same(attend(q_THN[:1], rows_SX[: S - 39]), whole[:1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["latent", "grouped"])
@pytest.mark.parametrize(
    ("T", "S", "H", "G", "N"),
    [(1, 1, 1, 1, 8), (5, 5, 4, 2, 24), (3, 200, 9, 3, 64), (17, 80, 20, 1, 40), (1, 1100, 4, 4, 16)],
)
def test_attention_equals_the_reference(dtype: torch.dtype, kind: str, T: int, S: int, H: int, G: int, N: int) -> None:
    q_THN, rows_SX = values(T, H, N, dtype=dtype), values(S, 2 * G * N, dtype=dtype, seed=1)
    ours = attention(kind, kernels, G, N)(q_THN, poisoned(rows_SX))
    exact = attention(kind, reference, G, N)(q_THN.double(), rows_SX.double())
    # bfloat16 rounds the weights of the rows and the result; float32 sums are all but exact.
    tolerance = 1e-6 if dtype is torch.float32 else 2**-6
    assert ours.dtype is dtype
    torch.testing.assert_close(ours.double(), exact, rtol=tolerance, atol=tolerance)


def test_keys_and_values_may_stand_apart() -> None:
    q, k, v = values(3, 4, 8, dtype=torch.float32), *(values(9, 2, 8, dtype=torch.float32, seed=s) for s in (1, 2))
    apart = kernels.causal_attention(q, k, v.transpose(0, 1).contiguous().transpose(0, 1), 0.3)
    both = torch.cat((k, v), dim=1)
    assert same(apart, kernels.causal_attention(q, both[:, :2], both[:, 2:], 0.3))


def operations(dtype: torch.dtype) -> Iterator[tuple[str, Callable[[object], Callable[..., Tensor]], list[Tensor]]]:
    """Every canonical operation as a function of its differentiable inputs."""
    x_TD, weight_FD, bias_F = values(7, 37, dtype=dtype), values(21, 37, dtype=dtype, seed=1), values(21, dtype=dtype)
    yield "linear", lambda m: m.linear, [x_TD, weight_FD / 6, bias_F]
    yield "linear of a vector", lambda m: m.linear, [x_TD[0], weight_FD / 6]
    yield "head_linear", lambda m: m.head_linear, [values(5, 3, 8, dtype=dtype), values(3, 4, 8, dtype=dtype)]
    yield "rms_norm", lambda m: lambda x, w: m.rms_norm(x, w, 1e-5), [x_TD, x_TD[0]]
    yield "swiglu", lambda m: m.swiglu, [values(5, 34, dtype=dtype)]
    yield "log_softmax", lambda m: m.log_softmax, [x_TD]
    yield "sigmoid", lambda m: m.sigmoid, [x_TD]
    angles_TR = values(7, 5, dtype=torch.float32)
    yield (
        "rotate",
        lambda m: lambda x: m.rotate(x, angles_TR.cos(), angles_TR.sin(), interleaved=True),
        [values(7, 2, 10, dtype=dtype)],
    )
    x, chosen, weights, gate_up, down = experts(dtype, 9, 2, 4, 24, 12)
    yield "experts", lambda m: lambda x, w, a, b: m.grouped_experts(x, chosen, w, a, b), [x, weights, gate_up, down]
    q, rows = values(6, 4, 8, dtype=dtype), values(70, 32, dtype=dtype, seed=1)
    yield "causal_attention", lambda m: attention("grouped", m, 2, 8), [q, rows]
    yield "latent_attention", lambda m: attention("latent", m, 2, 8), [q, rows]


@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_is_the_same_with_gradients_and_gradients_are_the_reference_s(dtype: torch.dtype) -> None:
    for name, of, inputs in operations(dtype):
        results = {}
        for key, module in (("ours", kernels), ("theirs", reference)):
            leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
            out = of(module)(*leaves)
            out.backward(values(*out.shape, dtype=out.dtype, seed=9))
            results[key] = out, [leaf.grad for leaf in leaves]
        with torch.no_grad():
            assert same(of(kernels)(*inputs), results["ours"][0].detach()), name
        tolerance = 1e-5 if dtype is torch.float32 else 2**-5
        for ours, theirs in zip(results["ours"][1], results["theirs"][1], strict=True):
            torch.testing.assert_close(
                ours,
                theirs,
                rtol=tolerance,
                atol=tolerance * float(theirs.abs().max()),
                msg=lambda m, n=name: f"{n}: {m}",
            )


def test_only_the_gradients_that_are_asked_for() -> None:
    x_TD, weight_FD = values(3, 8, dtype=torch.float32), values(4, 8, dtype=torch.float32).requires_grad_()
    kernels.rms_norm(kernels.linear(x_TD, weight_FD), torch.ones(4), 1e-5).sum().backward()
    assert weight_FD.grad is not None
    assert x_TD.grad is None


def test_what_is_not_canonical_takes_the_reference() -> None:
    x_TD, weight_FD = values(3, 8, dtype=torch.float64), values(4, 8, dtype=torch.float64)
    assert torch.equal(kernels.linear(x_TD, weight_FD), reference.linear(x_TD, weight_FD))
    assert kernels.rms_norm(x_TD.to("meta"), x_TD[0].to("meta"), 1e-5).device.type == "meta"


def digest() -> str:
    """The bits of bfloat16 products, whole and padded, and of attention."""
    total = hashlib.sha256()

    def note(tensor: Tensor) -> None:
        total.update(bits(tensor).numpy().tobytes())

    for T, N, K in [(1, 5, 7), (3, 33, 64), (16, 32, 96), (19, 40, 130), (2, 64, 577)]:
        x_TD, weight_FD = values(T, K, dtype=torch.bfloat16), values(N, K, dtype=torch.bfloat16, seed=1)
        note(kernels.linear(x_TD, weight_FD, values(N, dtype=torch.bfloat16, seed=2)))
    for kind in ("grouped", "latent"):
        q_THN, rows_SX = values(3, 4, 24, dtype=torch.bfloat16), values(70, 96, dtype=torch.bfloat16, seed=1)
        note(attention(kind, kernels, 2, 24)(q_THN, rows_SX))
    return total.hexdigest()


def test_bfloat16_has_the_same_bits_on_every_path() -> None:
    """AMX tiles and what stands for them elsewhere: a process each, since a path is chosen once."""
    code = "import test_canonical_attention as t; print(t.TARGET.path, t.digest())"
    search = os.pathsep.join(sys.path)
    others = {path for path in ("avx512", "portable") if path in available_paths()} - {TARGET.path}
    running = {}
    for path in others:
        environment = os.environ | {"SEAMOUNT_CPU": path, "PYTHONPATH": search}
        command = [sys.executable, "-c", code]
        running[path] = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    expected = digest()
    for path, process in running.items():
        output, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
        assert output.decode().split() == [path, expected]
