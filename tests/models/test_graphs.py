"""The step that CUDA graphs capture, run without a graph: the same numbers from tensors that stay where they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import seamount
from seamount.kernels import reference
from seamount.models import initialise
from seamount.models.graphs import DecodeGraphs, StaticStep
from seamount.models.model import Model
from seamount.models.parts.batch import Batch
from seamount.models.parts.pages import Cache, Pages


def model_of(preset: str, directory: Path) -> Model:
    """In float64, which takes the reference operations, as CUDA does."""
    initialise(preset, directory / "model", seed=4)
    return seamount.load(directory / "model", dtype="float32").double()


@pytest.mark.parametrize("preset", ["tiny-llama", "tiny-qwen3", "tiny-v2-lite", "tiny-v3"])
def test_a_static_step_equals_the_batch_that_it_was_filled_with(preset: str, tmp_path: Path) -> None:
    model = model_of(preset, tmp_path)
    pages = Pages(model.page_layout, 24, model.device)
    pages.memory.fill_(255)
    step = StaticStep(model, pages, 4, 4)
    lengths = (130, 63, 7)
    with torch.inference_mode():
        caches = [Cache(pages, range(4 * number, 4 * number + 4)) for number in range(3)]
        tokens_T = torch.randint(0, 500, (sum(lengths),), generator=torch.Generator().manual_seed(1))
        model.logits_at(tokens_T, Batch.of(lengths, caches, model.device), [])
        for turn in range(3):
            chosen = caches[: 3 - turn]
            tokens_B = torch.tensor([5, 6, 7][: len(chosen)]) + turn
            batch = Batch.of([1] * len(chosen), chosen, model.device)
            step.fill(tokens_B, batch)
            static_BW = step.run()[: len(chosen)]
            again = Batch.of([1] * len(chosen), chosen, model.device)
            expected_BW = model.logits_at(tokens_B, again, range(len(chosen)))
            assert torch.allclose(static_BW, expected_BW, rtol=1e-5, atol=1e-5)


def test_only_steps_of_single_tokens_are_captured(tmp_path: Path) -> None:
    model = model_of("tiny-llama", tmp_path)
    pages = Pages(model.page_layout, 2, model.device)
    caches = [Cache(pages, [0]), Cache(pages, [1])]
    assert DecodeGraphs.suits(Batch.of([1, 1], caches, model.device), [0, 1])
    assert not DecodeGraphs.suits(Batch.of([1, 1], caches, model.device), [1])
    assert not DecodeGraphs.suits(Batch.of([1, 2], caches, model.device), [0, 1])
    assert not DecodeGraphs.suits(Batch.fresh([1], model.device), [0])


@pytest.mark.parametrize(("T", "K", "E"), [(1, 2, 8), (3, 4, 16), (9, 4, 16), (5, 1, 3)])
def test_experts_of_static_shapes_equal_the_grouped_ones(T: int, K: int, E: int) -> None:
    generator = torch.Generator().manual_seed(T)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x_TD, gate_up, down = random(T, 12), random(E, 20, 12), random(E, 12, 10)
    expert_TK = torch.stack([torch.randperm(E, generator=generator)[:K] for _ in range(T)])
    inputs = x_TD, expert_TK, random(T, K), gate_up, down
    assert torch.allclose(reference.static_experts(*inputs), reference.grouped_experts(*inputs), rtol=1e-6, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("preset", ["tiny-llama", "tiny-v2-lite", "tiny-v3"])
def test_a_graph_gives_the_numbers_of_its_step(preset: str, tmp_path: Path) -> None:
    initialise(preset, tmp_path / "model", seed=4)
    model = seamount.load(tmp_path / "model", dtype="float32", device="cuda")
    prompt, answers = [3, 1, 4, 1, 5], []
    for graphs in (True, False):
        cache = model.new_cache(100)
        model._graphs.suits = (lambda *_: False) if not graphs else DecodeGraphs.suits  # type: ignore[method-assign]
        rows = [model.step(prompt, cache)]
        rows += [model.step([token], cache) for token in range(70)]
        answers.append(torch.stack(rows))
    assert torch.allclose(answers[0], answers[1], rtol=1e-3, atol=1e-3)
