"""Decode steps of many sequences, whose key-value heads attend side by side: bit for bit each sequence by itself."""

from typing import Any

import numba
import pytest
import torch

import seamount
from seamount.kernels.cpu.attending import SPLIT_UNITS
from seamount.kernels.cpu.records import S
from seamount.kernels.cpu.step import layer_record
from seamount.models import initialise
from seamount.models.model import Model
from seamount.models.parts.batch import Batch
from seamount.models.parts.pages import Cache, Pages, new_caches
from seamount.models.program import Program

# Query heads, key-value heads, their width, and how many key-value heads fill a column group together.
SHAPES = {
    "three of three": (9, 3, 64, 3),
    "four of eight": (32, 8, 32, 4),
    "two of six": (36, 6, 32, 2),
    "one of one": (16, 1, 32, 1),
    "too many queries": (20, 1, 32, 0),
    "too narrow": (4, 2, 16, 0),
}
STEPS = 3


@pytest.fixture(scope="module", params=SHAPES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A packed toy of that shape, with norms of its heads where that can be."""
    heads, groups, dim, beside = SHAPES[request.param]
    directory = tmp_path_factory.mktemp("model") / "model"
    overrides: dict[str, Any] = {"num_attention_heads": heads, "num_key_value_heads": groups, "head_dim": dim}
    initialise("tiny-qwen3" if dim > 16 else "tiny-llama", directory, seed=1, overrides=overrides)
    made = seamount.load(directory, quantize="int8")
    assert Program(made)._layers[0][layer_record("beside")] == beside
    return made


def _tokens(model: Model, count: int, seed: int) -> torch.Tensor:
    return torch.randint(0, model.spec.vocab_size, (count,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("layout", ["page_layout", "compressed_layout"])
@pytest.mark.parametrize("many", [True, False])
def test_sequences_that_decode_together_keep_the_bits_of_each(model: Model, layout: str, many: bool) -> None:
    # Within a page, at its edges, over pages, and over a segment of 512 rows; or two that are short.
    count = SPLIT_UNITS * numba.get_num_threads() + 1 if many else 2
    lengths = [(5, 63, 64, 130, 1, 511, 32, 600, 200)[number % 9] for number in range(count)]
    needed = [(length + STEPS + 63) // 64 for length in lengths]
    pages = Pages(getattr(model, layout), sum(needed), model.device)
    pages.memory.fill_(255)  # not a number, where nothing was written
    order = torch.randperm(sum(needed), generator=torch.Generator().manual_seed(1)).tolist()
    caches = [Cache(pages, [order.pop() for _ in range(need)]) for need in needed]
    sequences = [_tokens(model, length + STEPS, seed) for seed, length in enumerate(lengths)]
    for cache, tokens_T, length in zip(caches, sequences, lengths, strict=True):
        model.logits_at(tokens_T[:length], Batch.following(length, cache, model.device), [])
    program = model._program
    assert program is not None
    decoded = []
    for step in range(STEPS):
        tokens_T = torch.stack([row_T[length + step] for row_T, length in zip(sequences, lengths, strict=True)])
        decoded.append(model.logits_at(tokens_T, Batch.of([1] * count, caches, model.device), range(count)))
        assert program._step._record[S.is_alone // 8] == 1
    for number, (tokens_T, length) in enumerate(zip(sequences, lengths, strict=True)):
        cache = new_caches(getattr(model, layout), [len(tokens_T)], model.device)[0]
        batch = Batch.following(len(tokens_T), cache, model.device)
        expected_TW = model.logits_at(tokens_T, batch, range(length, length + STEPS))
        assert program._step._record[S.is_alone // 8] == 0
        assert torch.equal(torch.stack([logits_BW[number] for logits_BW in decoded]), expected_TW)
