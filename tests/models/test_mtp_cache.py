"""MTP layers over cached rows: the numbers of whole sequences, and no trace in the main layers' rows."""

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import seamount
from seamount.errors import RequestError
from seamount.models import initialise
from seamount.models.model import Model
from seamount.models.parts.batch import Batch
from seamount.models.parts.pages import Cache, Pages

FORMS = {"float32": {"dtype": "float32"}, "bfloat16": {"dtype": "bfloat16"}, "int8": {"quantize": "int8"}}
LENGTH = 80


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    directory: Path = tmp_path_factory.mktemp("mtp")
    initialise("tiny-v3", directory / "model", seed=1, overrides={"num_nextn_predict_layers": 2})
    return {form: seamount.load(directory / "model", **options) for form, options in FORMS.items()}


TOKENS = torch.randint(0, 512, (LENGTH,), generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def in_parts(model: Model, edges: list[int]) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Main logits and hidden states, and every MTP layer's logits, part by part over poisoned pages."""
    pages = Pages(model.layout(has_mtp=True), 2, model.device)
    pages.memory.fill_(255)
    cache = Cache(pages, [1, 0])
    logits, hidden = [], []
    for start, stop in itertools.pairwise([0, *edges, LENGTH]):
        batch = Batch.following(stop - start, cache, model.device)
        logits_TW, hidden_TD = model.logits_and_hidden(TOKENS[start:stop], batch, range(stop - start))
        logits.append(logits_TW)
        hidden.append(hidden_TD)
    of_depth_TD, predictions = torch.cat(hidden), []
    for depth in (1, 2):
        parts = []
        for start, stop in itertools.pairwise([0, *edges, LENGTH - depth]):
            batch = Batch.following(stop - start, cache.at(start), model.device)
            ahead_T = TOKENS[start + depth : stop + depth]
            parts.append(model.mtp_hidden(depth, of_depth_TD[start:stop], ahead_T, batch))
        of_depth_TD = torch.cat(parts)
        predictions.append(model.head(of_depth_TD))
    assert cache.length == LENGTH
    return torch.cat(logits), torch.cat(hidden), predictions


@pytest.mark.parametrize("form", FORMS)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=4)
@given(cuts=st.sets(st.integers(1, LENGTH - 3), max_size=4))
@torch.inference_mode()
def test_parts_give_the_numbers_of_the_whole(models: dict[str, Model], form: str, cuts: set[int]) -> None:
    model = models[form]
    logits_TW, hidden_TD, predictions = in_parts(model, sorted(cuts))
    assert torch.equal(logits_TW, model.logits(TOKENS[None])[0])
    whole = [logits_BTW[0] for logits_BTW in model.mtp_logits(TOKENS[None])]
    if form != "int8":
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(predictions, whole, strict=True))
        assert torch.equal(model.head(hidden_TD), logits_TW)
        return
    # The compiled step and the modules, which mtp_logits runs, round in different places.
    for ours, theirs in zip(predictions, whole, strict=True):
        error_T = (ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)
        assert error_T.median() < 0.03


def test_without_mtp_rows_pages_are_smaller(models: dict[str, Model]) -> None:
    model = models["float32"]
    plain, wide = model.page_layout, model.layout(has_mtp=True)
    assert wide.dims == (*plain.dims, 40, 40)
    assert wide.offsets[:4] == plain.offsets
    assert wide.description != plain.description


def test_places_outside_the_batch_are_refused(models: dict[str, Model]) -> None:
    with pytest.raises(RequestError, match=r"\[3\].*3 tokens"):
        models["int8"].logits_and_hidden(TOKENS[:3], Batch.fresh([3], TOKENS.device), [3])
