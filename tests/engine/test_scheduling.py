"""Random workloads on the toy model, whose rows are its tokens: wrong pages, wrong order or lost work would show."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_model import ToyModel
from workloads import Ask, alone, asks, together

from seamount.engine import Engine, SamplingParams
from seamount.engine.prefix_cache import PrefixCache
from seamount.errors import ConfigError, ContextOverflow, QueueFull
from seamount.models.parts.pages import PageLayout, Pages

PAGE_BYTES = 64 * 4


def poison(engine: Engine) -> None:
    """Free pages hold nothing that could be read by mistake."""
    for page in engine._store._free:
        engine._store.pages.memory[page].fill_(255)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    workload=asks(250, 300),
    pages=st.integers(6, 24),
    step_tokens=st.integers(1, 200),
    mixed_tokens=st.integers(1, 90),
    max_running=st.integers(1, 6),
    drafts=st.sampled_from(["off", "ngram"]),
)
def test_load_pressure_and_aborts_change_no_answer(
    model: ToyModel,
    workload: list[Ask],
    pages: int,
    step_tokens: int,
    mixed_tokens: int,
    max_running: int,
    drafts: str,
) -> None:
    expected = [alone(Engine(model, memory="1MiB"), ask) for ask in workload]
    engine = Engine(
        model,
        memory=pages * PAGE_BYTES,
        step_tokens=step_tokens,
        mixed_tokens=mixed_tokens,
        max_running=max_running,
        drafts=drafts,
    )
    poison(engine)

    def look() -> None:
        engine.check()
        poison(engine)

    results = together(engine, workload, look)
    for result, answer in zip(results, expected, strict=True):
        assert result in (answer, None)
    assert engine.metrics.pages_used == 0
    # And once more, now that much of it is cached.
    for ask, one in zip(workload, expected, strict=True):
        assert alone(engine, ask) == one
        look()


def test_an_earlier_answer_is_reused_to_its_last_row(model: ToyModel) -> None:
    engine = Engine(model, memory="1MiB")
    first = engine.generate([[7] * 100], SamplingParams(max_tokens=90, seed=1, ignore_eos=True))[0]
    turn = [7] * 100 + list(first.token_ids)
    again = engine.generate([[*turn, 5, 6, 7]], SamplingParams(max_tokens=1))[0]
    assert first.cached_tokens == 0
    # The last token of an answer has no row yet.
    assert again.cached_tokens == len(turn) - 1
    assert engine.generate([turn[:77]], SamplingParams(max_tokens=1))[0].cached_tokens == 76
    assert engine.metrics.hit_tokens == len(turn) - 1 + 76


def test_what_is_used_often_and_costs_much_stays(model: ToyModel) -> None:
    engine = Engine(model, memory=12 * PAGE_BYTES)
    often = [3] * 200
    for _ in range(4):
        engine.generate([often], SamplingParams(max_tokens=1))
    for number in range(8):
        engine.generate([[number + 10] * 150], SamplingParams(max_tokens=1))
    # Used last, longest ago, and yet not evicted.
    assert engine.metrics.evictions > 10
    assert engine.generate([often], SamplingParams(max_tokens=1))[0].cached_tokens >= 192


def test_siblings_share_the_pages_of_the_prompt(model: ToyModel) -> None:
    engine = Engine(model, memory="1MiB")
    engine.add([9] * 640, SamplingParams(n=16, max_tokens=8, seed=0, ignore_eos=True))
    most = 0
    while engine.has_work:
        engine.step()
        most = max(most, engine.metrics.pages_used)
    assert most <= 10 + 16


def test_first_come_first_served_also_under_pressure(model: ToyModel) -> None:
    engine = Engine(model, memory=8 * PAGE_BYTES)
    params = SamplingParams(max_tokens=200, ignore_eos=True, seed=1)
    ids = [engine.add([number] * 60, params) for number in range(5)]
    ended: list[int] = []
    while engine.has_work:
        ended += [chunk.request_id for chunk in engine.step() if chunk.finish_reason]
    assert ended == ids
    assert engine.metrics.preemptions > 0


def test_a_decoding_answer_goes_on_while_a_prompt_is_read(model: ToyModel) -> None:
    engine = Engine(model, memory="1MiB", step_tokens=64, mixed_tokens=16)
    params = SamplingParams(max_tokens=100, ignore_eos=True, seed=1)
    first = engine.add([1, 2], params)
    engine.step()
    engine.add([5] * 160, params)
    for _ in range(9):
        assert [chunk.request_id for chunk in engine.step()] == [first]
    assert model.step_sizes[-1] == 16
    assert len({chunk.request_id for chunk in engine.step()}) == 2


def test_too_much_is_refused_by_name(model: ToyModel) -> None:
    engine = Engine(model, memory=4 * PAGE_BYTES, max_waiting=2)
    with pytest.raises(ContextOverflow, match=r"250 tokens.*memory holds 256"):
        engine.add([1] * 250, SamplingParams(max_tokens=8))
    engine.add([1] * 250, SamplingParams(max_tokens=7))
    engine.add([1], SamplingParams(max_tokens=1))
    with pytest.raises(QueueFull, match="2 requests"):
        engine.add([1])
    assert engine.metrics.refused == 1
    while engine.has_work:
        engine.step()
    engine.add([1])
    for options in (
        {"memory": "8 GigaByte"},
        {"memory": 0},
        {"memory": 255},
        {"step_tokens": 0},
        {"drafts": "all"},
        {"rows": "int8"},
    ):
        with pytest.raises(ConfigError, match=next(iter(options))):
            Engine(model, **options)


def test_new_weights_make_old_rows_unreachable(model: ToyModel) -> None:
    engine = Engine(model, memory="1MiB")
    prompt, params = [4] * 300, SamplingParams(max_tokens=40, seed=2, ignore_eos=True)
    old = engine.generate([prompt], params)[0]
    half = engine.stream(prompt, params)
    begun = [next(half).token_id for _ in range(5)]
    model.salt = 1
    engine.weights_changed()
    rest = [chunk.token_id for chunk in half]
    engine.check()
    fresh = Engine(model, memory="1MiB")
    new = engine.generate([[*prompt, 1]], params)[0]
    assert new.cached_tokens == 300
    assert new.token_ids == fresh.generate([[*prompt, 1]], params)[0].token_ids
    assert begun + rest != list(old.token_ids)
    again = fresh.generate([[*prompt, *begun]], SamplingParams(max_tokens=35, seed=2, ignore_eos=True))[0]
    assert rest == list(again.token_ids)


def test_a_lost_page_is_seen() -> None:
    store = PrefixCache(Pages(PageLayout([1], torch.float32), 3, torch.device("cpu")))
    page = store.take()
    with pytest.raises(AssertionError, match="lost"):
        store.check([], [])
    assert page is not None
    store.check([], [page])
    store.give(page)
    store.check([], [])


def test_logits_that_are_no_numbers_fail_their_own_request_alone(
    model: ToyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(model, memory="1MiB")
    logits = ToyModel._logits
    monkeypatch.setattr(
        ToyModel, "_logits", lambda self, tokens: logits(self, tokens) * (float("nan") if tokens[0] == 13 else 1)
    )
    good, bad = engine.stream([1] * 70, SamplingParams(max_tokens=5)), engine.stream([13] * 70)
    with pytest.raises(AssertionError, match="not finite"):
        list(bad)
    assert len(list(good)) == 5
    engine.check()
    assert engine.metrics.failed == 1
