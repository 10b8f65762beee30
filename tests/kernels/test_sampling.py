"""Drawing tokens: the compiled kernel against its specification, and what a row's token depends on."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_canonical import THREADS, Threads

from seamount import kernels
from seamount.kernels import Draw, reference
from seamount.kernels.cpu.target import TARGET, available_paths
from seamount.kernels.reference.sampling import philox


def random_draw(random: np.random.Generator, W: int) -> Draw:
    """Any mixture of filters, edits and mask."""
    edits, mask = None, None
    if random.random() < 0.4:
        count = random.integers(1, 5)
        edits = random.integers(0, W, count), (random.standard_normal(count) * 3).astype(np.float32)
        edits[1][0] = random.choice([edits[1][0], -np.inf])
    if random.random() < 0.4:
        is_allowed_W = random.random(W) < random.choice([0.05, 0.5])
        mask = np.packbits(np.pad(is_allowed_W, (0, -W % 32)), bitorder="little").view(np.uint32)
    return Draw(
        temperature=float(random.choice([0, 1e-300, 1e-3, 0.5, 1, 2, 1e300])),
        top_k=int(random.choice([-1, 0, 0, 1, 5, 20, W])),
        top_p=float(random.choice([1, 1, 0.95, 0.5, 0.1, 1e-9])),
        min_p=float(random.choice([0, 0, 0.05, 0.5, 1])),
        seed=int(random.integers(2**63)) * 2 + 1,
        sample_index=int(random.integers(128)),
        position=int(random.integers(2**32)),
        edits=edits,
        mask=mask,
    )


def batch(W: int, n: int, seed: int) -> tuple[torch.Tensor, list[Draw]]:
    """Logits of several spreads, some with many ties, and a draw for each row."""
    random = np.random.default_rng([seed, W])
    logits_nW = random.standard_normal((n, W)) * random.choice([0, 0.1, 1, 4], (n, 1))
    logits_nW[::3] = (logits_nW[::3] * 2).round()
    return torch.from_numpy(logits_nW.astype(np.float32)), [random_draw(random, W) for _ in range(n)]


WIDTHS = [1, 2, 15, 16, 17, 63, 64, 65, 100, 1000, 4161]


@pytest.mark.parametrize("W", WIDTHS)
def test_every_draw_equals_the_reference(W: int) -> None:
    logits_nW, draws = batch(W, 120, seed=0)
    before_nW = logits_nW.clone()
    assert kernels.draw_tokens(logits_nW, draws) == reference.draw_tokens(logits_nW, draws)
    assert torch.equal(logits_nW, before_nW)


@pytest.mark.parametrize(("n", "W"), [(40, 20_000), (1000, 1000)])
def test_no_winner_is_passed_over_where_the_noise_alone_decides(n: int, W: int) -> None:
    draws = [Draw(1.0, seed=2**63 + 5, sample_index=i % 3, position=i) for i in range(n)]
    found = kernels.draw_tokens(torch.zeros(n, W), draws)
    assert found == reference.draw_tokens(torch.zeros(n, W), draws)
    assert len(set(found)) > 30


@pytest.mark.parametrize("W", [5, 100, 4161])
def test_a_row_is_the_same_alone_and_among_others(W: int) -> None:
    logits_nW, draws = batch(W, 64, seed=1)
    whole = kernels.draw_tokens(logits_nW, draws)
    wide_nX = torch.cat((logits_nW, torch.full((64, 3), torch.nan)), dim=1)
    for threads in THREADS:
        with Threads(threads):
            assert kernels.draw_tokens(logits_nW, draws) == whole
            assert kernels.draw_tokens(logits_nW.flip(0), draws[::-1]) == whole[::-1]
            assert kernels.draw_tokens(wide_nX[:, :W], draws) == whole
            for row in (0, 17, 63):
                assert kernels.draw_tokens(logits_nW[row : row + 1], draws[row : row + 1]) == whole[row : row + 1]


def test_a_mask_or_a_filter_shifts_no_other_token_s_noise() -> None:
    W, draw = 200, Draw(1.0, seed=3)
    logits_W = torch.randn(W, generator=torch.Generator().manual_seed(0))
    for position in range(30):
        (winner,) = kernels.draw_tokens(logits_W[None], [draw._replace(position=position)])
        others = [token for token in range(W) if token != winner and token % 3]
        edits = np.array(others), np.full(len(others), -np.inf, np.float32)
        assert kernels.draw_tokens(logits_W[None], [draw._replace(position=position, edits=edits)]) == [winner]


def test_rows_without_an_answer_say_so() -> None:
    nothing = np.zeros(1, np.uint32)
    logits_nW = torch.zeros(5, 20)
    logits_nW[1, 19], logits_nW[2, 0], logits_nW[3, 7] = torch.nan, torch.inf, -torch.inf
    forbidden = np.arange(20), np.full(20, -np.inf, np.float32)
    for temperature in (0.0, 1.0):
        draws = [Draw(temperature, mask=nothing), *[Draw(temperature)] * 3, Draw(temperature, edits=forbidden)]
        for module in (kernels, reference):
            found = module.draw_tokens(logits_nW, draws)
            assert found[:3] == [-1, -2, -2]
            assert found[3] >= 0
            assert found[4] == -1


@pytest.mark.parametrize("W", WIDTHS)
def test_the_largest_come_first_and_of_equal_ones_the_lower_id(W: int) -> None:
    values_nW, _ = batch(W, 9, seed=2)
    values_nW[4, ::2], values_nW[5, 1::2] = -torch.inf, -0.0
    for count in (0, 1, 3, 20, W):
        found = kernels.top_tokens(values_nW, count)
        assert torch.equal(found, reference.top_tokens(values_nW, count))
        assert torch.equal(
            kernels.top_tokens(values_nW[2:3, : W // 2 + 1], count)[0],
            reference.top_tokens(values_nW[2:3, : W // 2 + 1], count)[0],
        )


def test_the_random_numbers_are_the_published_ones() -> None:
    """Known answers of the paper's own library, Random123."""
    cases = {
        (0, 0, 0, 0, 0, 0): "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        (2**32 - 1,) * 6: "408f276d 41c83b0e a20bc7c6 6d5451fd",
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0): "d16cfe09 94fdcceb 5001e420 24126ea1",
    }
    for (*counter, low, high), expected in cases.items():
        words = philox([np.array([word], np.uint64) for word in counter], low | high << 32)
        assert " ".join(f"{int(word[0]):08x}" for word in words) == expected


def digest() -> list[int]:
    """Tokens of all kinds of draws, and the largest of rows."""
    found = []
    for W in (1, 65, 1000, 4161):
        logits_nW, draws = batch(W, 100, seed=3)
        found += kernels.draw_tokens(logits_nW, draws) + kernels.top_tokens(logits_nW, 3).flatten().tolist()
    return found


_CHILD = "import sys; sys.path.insert(0, {tests!r}); import test_sampling as t; print(t.TARGET.path, t.digest())"
_SLOW = [pytest.param(path, marks=pytest.mark.slow) for path in ("avx512", "avxvnni", "portable")]


@pytest.mark.parametrize("path", ["avx2", *_SLOW])
def test_every_path_draws_the_same_tokens(path: str) -> None:
    if path not in available_paths() or path == TARGET.path:
        pytest.skip(f"this machine's paths are {', '.join(available_paths())}, and {TARGET.path} is the default")
    child = _CHILD.format(tests=str(Path(__file__).parent))
    result = subprocess.run(
        [sys.executable, "-c", child], env=os.environ | {"SEAMOUNT_CPU": path}, capture_output=True, check=False
    )
    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout.decode().strip() == f"{path} {digest()}"
