"""The same numbers by different ways: absorbed and expanded, cached and whole, alone and in a batch."""

from pathlib import Path

import pytest
import torch
from toys import CONFIGS, V3, published, randomise, save_published

import seamount
from seamount.errors import ContextOverflow, RequestError
from seamount.models import Model
from seamount.models.families import family_config
from seamount.models.parts.batch import Batch
from seamount.models.parts.mla import LatentAttention
from seamount.models.parts.pages import Cache, Pages


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> Model:
    return built(CONFIGS[request.param])


def built(config: dict) -> Model:
    model = Model(family_config(config, source="a test").spec(), config)
    randomise(model)
    return model.eval()


def tokens(model: Model, B: int = 1, T: int = 37) -> torch.Tensor:
    return torch.randint(model.spec.vocab_size, (B, T), generator=torch.Generator().manual_seed(2))


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert torch.isfinite(ours).all()
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("name", [name for name in CONFIGS if name.startswith(("v2", "v3"))])
def test_absorbed_equals_expanded(name: str) -> None:
    model = built(CONFIGS[name])
    tokens_BT = tokens(model, B=2)
    with torch.no_grad():
        absorbed = model.logits(tokens_BT)
        attentions = [module for module in model.modules() if isinstance(module, LatentAttention)]
        for attention in attentions:
            attention.form = "expanded"
        expanded = model.logits(tokens_BT)
    assert len(attentions) == len(model.spec.layers)
    assert relative(absorbed, expanded) < 1e-5


@pytest.mark.parametrize("cuts", [[1] * 37, [37], [5, 1, 1, 19, 11], [36, 1]])
def test_cached_steps_equal_the_whole(model: Model, cuts: list[int]) -> None:
    """The cache is larger than needed and NaN where unwritten, so that reading past the end cannot pass."""
    tokens_BT = tokens(model)
    with torch.no_grad():
        whole = model.logits(tokens_BT)[0]
    cache, start = model.new_cache(50), 0
    cache.pages.memory.fill_(255)
    for count in cuts:
        logits_W = model.step(tokens_BT[0, start : start + count].tolist(), cache)
        start += count
        assert cache.length == start
        assert relative(logits_W, whole[start - 1]) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_over_scattered_pages_gives_the_bits_of_each_sequence_alone(model: Model, dtype: torch.dtype) -> None:
    model = model.to(dtype)
    pages = Pages(model.page_layout, 7, model.device)
    pages.memory.fill_(255)  # no number, in either dtype
    caches = [Cache(pages, table) for table in ((6, 2), (4,), (0, 5))]
    tokens_BT = tokens(model, B=3, T=100)
    with torch.no_grad():
        whole_BTW = model.logits(tokens_BT)
        for lengths in ((65, 1, 33), (1, 1, 1), (2, 40, 33)):
            starts = [cache.length for cache in caches]
            places = [slice(start, start + length) for start, length in zip(starts, lengths, strict=True)]
            batch = Batch.of(lengths, caches, model.device)
            tokens_T = torch.cat([row_T[place] for row_T, place in zip(tokens_BT, places, strict=True)])
            parts = model.logits_at(tokens_T, batch, range(sum(lengths))).split(lengths)
            for row_TW, place, part_TW in zip(whole_BTW, places, parts, strict=True):
                assert torch.equal(part_TW, row_TW[place])


def test_sequences_of_a_batch_do_not_see_each_other(model: Model) -> None:
    tokens_BT = tokens(model, B=3, T=13)
    with torch.no_grad():
        together = model.logits(tokens_BT)
        for row, alone in zip(together, tokens_BT, strict=True):
            assert relative(row, model.logits(alone[None])[0]) < 1e-5


def test_a_later_token_changes_no_earlier_logits(model: Model) -> None:
    tokens_BT = tokens(model)
    changed = tokens_BT.clone()
    changed[0, -1] = (changed[0, -1] + 1) % model.spec.vocab_size
    with torch.no_grad():
        before, after = model.logits(tokens_BT)[0], model.logits(changed)[0]
    assert relative(after[:-1], before[:-1]) < 1e-6
    assert relative(after[-1], before[-1]) > 1e-3


def test_generate_is_the_greedy_continuation(model: Model) -> None:
    prompt = tokens(model, T=5)[0].tolist()
    answer = model.generate(prompt, max_tokens=6)
    sequence = list(prompt)
    for _ in range(6):
        with torch.no_grad():
            sequence.append(int(model.logits(torch.tensor([sequence]))[0, -1].argmax()))
    assert sequence == prompt + answer


def test_mtp_by_the_formula() -> None:
    """DeepSeek-V3, equations 21 to 23, written out for two depths."""
    model = built(V3 | {"num_nextn_predict_layers": 2})
    tokens_BT = tokens(model, T=17)
    embedding = model.embed_tokens.weight[tokens_BT[0]]
    with torch.no_grad():
        predictions = model.mtp_logits(tokens_BT)
        assert [tuple(part.shape) for part in predictions] == [(1, 16, 97), (1, 15, 97)]
        hidden = model.hidden(tokens_BT[0], Batch.fresh([17], torch.device("cpu")))
        for depth, layer in enumerate(model.mtp, start=1):
            length = 17 - depth

            def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
                return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight

            both = torch.cat(
                [norm(embedding[depth:], layer.enorm.weight), norm(hidden[:length], layer.hnorm.weight)], dim=-1
            )
            hidden = layer.block(both @ layer.eh_proj.weight.T, Batch.fresh([length], torch.device("cpu")))
            hidden = norm(hidden, layer.norm.weight)
            assert relative(predictions[depth - 1][0], hidden @ model.lm_head.weight.T) < 1e-5


def test_mtp_layers_are_loaded_run_and_saved(tmp_path: Path) -> None:
    model = built(V3 | {"num_nextn_predict_layers": 1})
    seamount.save(model, tmp_path)
    again = seamount.load(tmp_path)
    tokens_BT = tokens(model)
    with torch.no_grad():
        assert torch.equal(again.mtp_logits(tokens_BT)[0], model.mtp_logits(tokens_BT)[0])


def test_a_checkpoint_without_its_mtp_layers_is_loaded_and_says_so(tmp_path: Path, caplog) -> None:
    config = V3 | {"num_nextn_predict_layers": 1}
    save_published(published(V3), config, tmp_path)
    model = seamount.load(tmp_path)
    assert len(model.mtp) == 0
    assert "1 MTP layers" in caplog.text
    assert model.config["num_nextn_predict_layers"] == 0


def test_requests_that_cannot_be_answered() -> None:
    model = built(CONFIGS["llama"])
    with pytest.raises(RequestError, match="0 to 96"):
        model.logits(torch.tensor([[97]]))
    with pytest.raises(RequestError, match="at least one token"):
        model.logits(torch.zeros(1, 0, dtype=torch.int64))
    with pytest.raises(ContextOverflow, match=r"129 tokens.*128"):
        model.new_cache(129)
    with pytest.raises(ContextOverflow, match="holds 4 tokens and 5"):
        model.step([1, 2, 3, 4, 5], model.new_cache(4))
    with pytest.raises(RequestError, match="no tokenizer"):
        model.generate("text")
    with pytest.raises(RequestError, match="MTP layers need more"):
        built(V3 | {"num_nextn_predict_layers": 1}).mtp_logits(torch.tensor([[1]]))
