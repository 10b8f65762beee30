"""The compiled step of a packed model: the modules' numbers, and bit for bit the same whatever else is in the batch."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seamount
from seamount.errors import RequestError
from seamount.kernels.cpu.attention import MOST_GROUPS
from seamount.kernels.cpu.target import TARGET, available_paths
from seamount.models import initialise, presets
from seamount.models.model import Model
from seamount.models.parts.batch import Batch
from seamount.models.parts.pages import Cache, Pages, new_caches
from seamount.models.program import Program, supports

PRESETS = ("tiny-llama", "tiny-qwen2", "tiny-qwen3", "tiny-moe", "tiny-v2-lite", "tiny-v2", "tiny-v3")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Model]:
    """Every tiny preset in every packed format."""
    made = {}
    for preset in PRESETS:
        directory = tmp_path_factory.mktemp(preset)
        initialise(presets.config(preset), directory / "model", seed=1)
        for format in ("int4", "int8"):
            made[preset, format] = seamount.load(directory / "model", quantize=format)
            made[preset, f"{format} in float32"] = seamount.load(directory / "model", quantize=format, dtype="float32")
    return made


def tokens_of(model: Model, count: int, seed: int = 0) -> torch.Tensor:
    """Random token ids."""
    return torch.randint(0, model.spec.vocab_size, (count,), generator=torch.Generator().manual_seed(seed))


def whole(model: Model, tokens_T: torch.Tensor) -> torch.Tensor:
    """The logits of one sequence in one go."""
    return model.logits(tokens_T[None])[0]


@pytest.mark.parametrize("format", ["int4", "int8"])
@pytest.mark.parametrize("preset", PRESETS)
def test_equals_the_modules_path(models: dict[tuple[str, str], Model], preset: str, format: str) -> None:
    model, modules = models[preset, format], models[preset, f"{format} in float32"]
    assert supports(model)
    assert not supports(modules)
    tokens_T = tokens_of(model, 37)
    with torch.no_grad():
        expected_TW = whole(modules, tokens_T)
    error_T = (whole(model, tokens_T) - expected_TW).norm(dim=-1) / expected_TW.norm(dim=-1)
    # The step rounds queries, cached rows and probabilities to bfloat16, and the modules nothing.
    # A router's choice between two experts that are nearly equal may then fall otherwise for a token or two.
    assert error_T.sort().values[-4] < 0.03
    assert error_T.max() < 0.3


@pytest.mark.parametrize("preset", ["tiny-llama", "tiny-qwen3", "tiny-v2-lite", "tiny-v3"])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_compressed_rows_keep_the_bits_of_every_cut_and_company(
    models: dict[tuple[str, str], Model], preset: str, data: st.DataObject
) -> None:
    """Two sequences in steps of any sizes over scattered, poisoned pages; each alone in one step."""
    model, order, lengths = models[preset, "int8"], data.draw(st.permutations(range(6))), (150, 70)
    pages = Pages(model.compressed_layout, 6, model.device)
    pages.memory.fill_(255)
    caches = [Cache(pages, order[:3]), Cache(pages, order[3:])]
    sequences = [tokens_of(model, length, seed) for seed, length in enumerate(lengths)]
    parts: list[list[torch.Tensor]] = [[], []]
    while caches[0].length < 150:
        counts = [data.draw(st.integers(1, 90)) for _ in caches]
        taken = [tokens_T[cache.length :][:n] for tokens_T, cache, n in zip(sequences, caches, counts, strict=True)]
        live = [number for number in (0, 1) if len(taken[number])]
        sizes = [len(taken[number]) for number in live]
        batch = Batch.of(sizes, [caches[number] for number in live], model.device)
        logits = model.logits_at(torch.cat(taken), batch, range(sum(sizes))).split(sizes)
        for number, logits_TW in zip(live, logits, strict=True):
            parts[number].append(logits_TW)
    for tokens_T, mine in zip(sequences, parts, strict=True):
        cache = new_caches(model.compressed_layout, [len(tokens_T)], model.device)[0]
        count = sum(map(len, mine))
        batch = Batch.following(count, cache, model.device)
        assert torch.equal(model.logits_at(tokens_T[:count], batch, range(count)), torch.cat(mine))


@pytest.mark.parametrize("preset", PRESETS)
def test_compressed_rows_are_the_same_rows_less_exactly(models: dict[tuple[str, str], Model], preset: str) -> None:
    model, modules = models[preset, "int8"], models[preset, "int8 in float32"]
    tokens_T = tokens_of(model, 90)
    with torch.no_grad():
        logits = [
            each.logits_at(tokens_T, Batch.of([90], new_caches(layout, [90], each.device), each.device), range(90))
            for each, layout in (
                (modules, modules.page_layout),
                (model, model.compressed_layout),
                (modules, modules.compressed_layout),
            )
        ]
    for other_TW in logits[1:]:
        error_T = (other_TW - logits[0]).norm(dim=-1) / logits[0].norm(dim=-1)
        assert 0 < error_T.sort().values[-4] < 0.05


@pytest.mark.parametrize("preset", PRESETS)
@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(1, 69), max_size=5), length=st.integers(1, 70))
def test_every_way_of_cutting_a_sequence_gives_the_same_bits(
    models: dict[tuple[str, str], Model], preset: str, cuts: list[int], length: int
) -> None:
    model = models[preset, "int4"]
    tokens_T = tokens_of(model, length)
    cache, parts = model.new_cache(length), []
    edges = sorted({0, length, *(cut for cut in cuts if cut < length)})
    for start, stop in itertools.pairwise(edges):
        batch = Batch.following(stop - start, cache, model.device)
        parts.append(model.logits_at(tokens_T[start:stop], batch, range(stop - start)))
    assert torch.equal(torch.cat(parts), whole(model, tokens_T))


@pytest.mark.parametrize("preset", ["tiny-llama", "tiny-v2-lite", "tiny-v3"])
@settings(max_examples=8, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=20), seed=st.integers(0, 99))
def test_a_sequence_alone_equals_itself_among_others(
    models: dict[tuple[str, str], Model], preset: str, lengths: list[int], seed: int
) -> None:
    model = models[preset, "int4"]
    sequences = [tokens_of(model, length, seed + number) for number, length in enumerate(lengths)]
    together = model.logits_at(torch.cat(sequences), Batch.fresh(lengths, model.device), range(sum(lengths))).split(
        lengths
    )
    for tokens_T, logits_TW in zip(sequences, together, strict=True):
        assert torch.equal(logits_TW, whole(model, tokens_T))


@pytest.mark.parametrize("preset", ["tiny-llama", "tiny-v2-lite"])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_pages_may_lie_anywhere(models: dict[tuple[str, str], Model], preset: str, data: st.DataObject) -> None:
    """Sequences with shared first pages and the others scattered, in one batch: the bits of each alone."""
    model = models[preset, "int8"]
    order = data.draw(st.permutations(range(9)))
    pages = Pages(model.page_layout, 9, model.device)
    pages.memory.fill_(255)
    shared, count = tokens_of(model, 128), data.draw(st.integers(0, 2))
    first = Cache(pages, order[:3])
    model.logits_at(shared, Batch.following(128, first, model.device), [])
    second = Cache(pages, [*order[:count], *order[3:6]])
    second.length = 64 * count
    third = Cache(pages, order[6:])
    lengths = [data.draw(st.integers(1, 60)) for _ in range(3)]
    tails = [tokens_of(model, length, number) for number, length in enumerate(lengths)]
    batch = Batch.of(lengths, [first, second, third], model.device)
    together = model.logits_at(torch.cat(tails), batch, range(sum(lengths))).split(lengths)
    for start, tail_T, logits_TW in zip((128, 64 * count, 0), tails, together, strict=True):
        assert torch.equal(logits_TW, whole(model, torch.cat((shared[:start], tail_T)))[start:])


def test_long_sequences_are_split_by_segment_without_changing_a_bit(models: dict[tuple[str, str], Model]) -> None:
    model = models["tiny-v2-lite", "int8"]
    tokens_T = tokens_of(model, 1100)
    cache = model.new_cache(1100)
    model.logits_at(tokens_T[:-1], Batch.following(1099, cache, model.device), [1098])
    alone = model.logits_at(tokens_T[-1:], Batch.following(1, cache, model.device), [0])
    assert torch.equal(alone[0], whole(model, tokens_T)[-1])


@pytest.mark.parametrize("preset", ["tiny-llama", "tiny-v2-lite", "tiny-v2"])
def test_tokens_that_share_pages_give_the_bits_of_each_alone(
    models: dict[tuple[str, str], Model], preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models[preset, "int4"]
    lengths = (170, 3, 41)
    tokens_T = tokens_of(model, sum(lengths))
    results = []
    for groups in (1, 3, MOST_GROUPS):
        monkeypatch.setattr(Program, "_sharing", lambda self, lengths, groups=groups: groups)
        batch = Batch.fresh(lengths, model.device)
        results.append(model.logits_at(tokens_T, batch, range(sum(lengths))))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_a_long_prompt_shares_pages_and_leaves_work_for_every_thread(models: dict[tuple[str, str], Model]) -> None:
    program = Program(models["tiny-v2-lite", "int4"])
    for threads in (1, 2, 8, 64):
        program._step.threads = threads
        alone, prompt = program._blocks([1] * 4), program._blocks([512, 512])
        assert len(alone) == 4
        counts = [count for _, count, _ in prompt]
        assert sum(counts) == 1024
        assert len(prompt) >= min(1024 // program._block, 8 * threads)
        assert (max(counts) > program._block) == (threads < 16)


@pytest.mark.parametrize("preset", ["tiny-v2-lite", "tiny-llama"])
def test_angles_are_the_same_whenever_they_are_made(
    models: dict[tuple[str, str], Model], preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models[preset, "int4"]
    tokens_T, batch = tokens_of(model, 40), Batch.fresh([40], model.device)
    whole = Program(model).logits(tokens_T, batch, [39])
    monkeypatch.setattr("seamount.models.program._FEWEST_TURNED", 4)
    program, cache = Program(model), model.new_cache(40)
    for token_T in tokens_T.split(1):
        last = program.logits(token_T, Batch.following(1, cache, model.device), [0])
    assert program._turned == 64
    assert torch.equal(last, whole)


@pytest.mark.parametrize("id", [-1, 10**6])
def test_no_row_is_read_beside_the_embedding(models: dict[tuple[str, str], Model], id: int) -> None:
    model = models["tiny-v2-lite", "int4"]
    with pytest.raises(AssertionError, match="without a row"):
        model.logits_at(torch.tensor([3, id]), Batch.fresh([2], model.device), [1])


def test_unwritten_rows_are_never_read(models: dict[tuple[str, str], Model]) -> None:
    model = models["tiny-moe", "int4"]
    tokens_T = tokens_of(model, 70)
    cache = model.new_cache(200)
    cache.pages.memory.fill_(255)  # bfloat16's not-a-number
    for start in range(0, 70, 7):
        batch = Batch.following(7, cache, model.device)
        logits_TW = model.logits_at(tokens_T[start : start + 7], batch, range(7))
        assert logits_TW.isfinite().all()


def test_a_not_a_number_in_the_cache_is_seen(models: dict[tuple[str, str], Model]) -> None:
    model = models["tiny-v2-lite", "int4"]
    cache = model.new_cache(8)
    model.logits_at(tokens_of(model, 4), Batch.following(4, cache, model.device), [3])
    cache.pages.rows(0)[0, 4] = float("nan")
    cache.advance(1)
    batch = Batch.following(1, cache, model.device)
    assert model.logits_at(tokens_of(model, 1), batch, [0]).isnan().any()


def test_widths_that_fill_no_block_give_the_modules_numbers(tmp_path: Path) -> None:
    odd = {"moe_intermediate_size": 24, "intermediate_size": 104, "vocab_size": 509}
    initialise("tiny-v2-lite", tmp_path / "model", seed=2, overrides=odd)
    model = seamount.load(tmp_path / "model", quantize="int4")
    modules = seamount.load(tmp_path / "model", quantize="int4", dtype="float32")
    assert supports(model)
    tokens_T = tokens_of(model, 37)
    with torch.no_grad():
        expected_TW = whole(modules, tokens_T)
    error_T = (whole(model, tokens_T) - expected_TW).norm(dim=-1) / expected_TW.norm(dim=-1)
    assert error_T.sort().values[-4] < 0.03


def test_places_outside_the_batch_and_tokens_that_do_not_follow_are_refused(
    models: dict[tuple[str, str], Model],
) -> None:
    model = models["tiny-llama", "int4"]
    for place in (-1, 3):
        with pytest.raises(RequestError, match="3 tokens"):
            model.logits_at(tokens_of(model, 3), Batch.fresh([3], model.device), [place])
    cache = model.new_cache(8)
    stale = Batch.following(2, cache, model.device)
    model.logits_at(tokens_of(model, 2), stale, [1])
    with pytest.raises(AssertionError, match="follow"):
        model.logits_at(tokens_of(model, 2), stale, [1])


def test_a_workspace_made_in_inference_mode_serves_outside_of_it(
    models: dict[tuple[str, str], Model],
) -> None:
    model = models["tiny-llama", "int8"]
    model._has_chosen = False
    model.step([1, 2, 3], model.new_cache(8))
    assert whole(model, tokens_of(model, 3)).isfinite().all()


def test_a_slower_path_says_so(models: dict[tuple[str, str], Model], caplog: pytest.LogCaptureFixture) -> None:
    model = models["tiny-llama", "int8 in float32"]
    model._has_chosen = False
    whole(model, tokens_of(model, 1))
    assert "slower" in caplog.text


def test_fewer_threads_change_no_bit_and_end(models: dict[tuple[str, str], Model]) -> None:
    model = models["tiny-moe", "int4"]
    tokens_T, threads = tokens_of(model, 50), numba.get_num_threads()
    expected_TW = whole(model, tokens_T)
    numba.set_num_threads(1)
    try:
        assert torch.equal(whole(model, tokens_T), expected_TW)
    finally:
        numba.set_num_threads(threads)


def digest(model: Model) -> bytes:
    """Logits of a few batches, as bytes."""
    compressed = new_caches(model.compressed_layout, [40], model.device)[0]
    parts = [whole(model, tokens_of(model, 21))]
    for cache in (model.new_cache(40), compressed):
        for start in range(0, 6, 2):
            batch = Batch.following(2, cache, model.device)
            parts.append(model.logits_at(tokens_of(model, 6)[start : start + 2], batch, range(2)))
    return torch.cat(parts).numpy().tobytes()


_CHILD = """
import sys, torch, seamount
sys.path.insert(0, {tests!r})
from models.test_program import digest
sys.stdout.buffer.write(digest(seamount.load({directory!r}, quantize="int4")))
"""


_SLOW = [pytest.param(path, "tiny-v2-lite", marks=pytest.mark.slow) for path in ("avxvnni", "avx2", "portable")]


@pytest.mark.parametrize(("path", "preset"), [("avx512", "tiny-v2-lite"), ("portable", "tiny-llama"), *_SLOW])
def test_every_path_gives_the_same_bits(tmp_path: Path, path: str, preset: str) -> None:
    if path not in available_paths() or path == TARGET.path:
        pytest.skip(f"this machine's paths are {', '.join(available_paths())}, and {TARGET.path} is the default")
    initialise(preset, tmp_path / "model", seed=1)
    tests = str(Path(__file__).resolve().parents[1])
    child = _CHILD.format(tests=tests, directory=str(tmp_path / "model"))
    result = subprocess.run(
        [sys.executable, "-c", child], env=os.environ | {"SEAMOUNT_CPU": path}, capture_output=True, check=False
    )
    assert result.returncode == 0, result.stderr.decode()
    mine = np.frombuffer(digest(seamount.load(tmp_path / "model", quantize="int4")), np.float32)
    assert np.array_equal(np.frombuffer(result.stdout, np.float32), mine)
