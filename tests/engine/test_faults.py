"""Faults that the engine must survive, and what it must not count, keep or mix up; on the toy model."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_model import ToyModel

from seamount.engine import Chunk, Engine, Grammar, SamplingParams
from seamount.engine.disk_tier import DiskTier
from seamount.engine.drafts import Drafter
from seamount.engine.prefix_cache import PrefixCache
from seamount.engine.request import Sequence
from seamount.errors import EngineError, RequestError
from seamount.models.parts.pages import PageLayout, Pages

PAGE_BYTES = 64 * 4


def finish(engine: Engine) -> None:
    """Run steps until nothing is left."""
    for _ in range(3000):
        if not engine.has_work:
            return
        engine.step()
    raise AssertionError("the work does not end")


def ends_in_time(work: Callable[[], Any]) -> bool:
    """Whether something comes back, instead of waiting for itself."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    return not thread.is_alive()


def test_a_prompt_that_is_preempted_is_scored_from_its_beginning(model: ToyModel) -> None:
    prompt, params = [i % 250 for i in range(120)], SamplingParams(max_tokens=2, seed=1, prompt_logprobs=1)
    with Engine(model, memory="1MiB").stream(prompt, params) as alone:
        list(alone)
    engine = Engine(model, memory=4 * PAGE_BYTES, mixed_tokens=1)
    engine.add([251] * 60, SamplingParams(max_tokens=130, seed=1, ignore_eos=True))
    engine.step()
    pressed = engine.stream(prompt, params)
    finish(engine)
    assert engine.metrics.preemptions > 0
    assert pressed.prompt_logprobs == alone.prompt_logprobs


def test_the_last_token_of_a_scored_prompt_is_followed_by_no_draft(
    model: ToyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Drafter, "counts", lambda self, rooms: dict(rooms) if self._source else {})
    prompt, params = [1, 2, 3] * 21 + [1, 2], SamplingParams(max_tokens=9, seed=1, prompt_logprobs=2, logprobs=1)
    (expected,) = Engine(model).generate([prompt], params)
    engine = Engine(model, drafts="ngram")
    (completion,) = engine.generate([prompt], params)
    assert completion.samples == expected.samples
    assert completion.prompt_logprobs == expected.prompt_logprobs


def test_only_rows_of_others_count_as_found(model: ToyModel) -> None:
    engine = Engine(model, memory=4 * PAGE_BYTES, mixed_tokens=1)
    engine.add([251] * 60, SamplingParams(max_tokens=130, seed=1, ignore_eos=True))
    engine.step()
    preempted = engine.stream([i % 250 for i in range(120)], SamplingParams(max_tokens=2))
    finish(engine)
    assert engine.metrics.preemptions > 0
    assert preempted.cached_tokens == 0


def test_who_is_refused_has_found_nothing_yet(model: ToyModel) -> None:
    engine = Engine(model, memory=8 * PAGE_BYTES)
    prompt = [9] * 130
    engine.generate([prompt], SamplingParams(max_tokens=1))
    engine.add([1] * 60, SamplingParams(max_tokens=300, seed=1, ignore_eos=True))
    engine.step()
    last = engine.stream(prompt + [8] * 200, SamplingParams(max_tokens=1))
    finish(engine)
    assert engine.metrics.preemptions == 0
    assert engine.metrics.hit_tokens == last.cached_tokens


def test_what_is_used_again_and_again_takes_no_more_memory(model: ToyModel) -> None:
    engine = Engine(model, memory=8 * PAGE_BYTES)
    for _ in range(700):
        engine.generate([[1] * 70], SamplingParams(max_tokens=1))
    assert len(engine._store._heap) < 200
    engine.generate([[number] * 200 for number in range(9)], SamplingParams(max_tokens=1))
    assert engine.metrics.evictions > 0
    engine.check()


def test_all_that_is_cached_is_written_at_the_end(tmp_path: Path) -> None:
    pages = Pages(PageLayout([1], torch.float32), 40, torch.device("cpu"))
    tier = DiskTier(tmp_path / "pages", 1 << 20, PAGE_BYTES, queue_bytes=2 * PAGE_BYTES)
    store = PrefixCache(pages, tier, b"root")
    for number in range(40):
        page = store.take()
        assert page is not None
        store.release([store.insert(None, [number] * 64, page)])
    store.save_all()
    tier.close()
    assert tier.statistics.writes == 40


def test_several_answers_that_fail_in_one_step_harm_no_other_request(
    model: ToyModel, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = ToyModel._logits

    def broken(self: ToyModel, tokens: list[int]) -> torch.Tensor:
        return logits(self, tokens) * (float("nan") if tokens[0] == 13 and len(tokens) > 72 else 1)

    monkeypatch.setattr(ToyModel, "_logits", broken)
    got: list[object] = []
    engine.add([13] * 70, SamplingParams(n=3, max_tokens=20, ignore_eos=True), got.append)
    good = engine.stream([1] * 70, SamplingParams(max_tokens=9, ignore_eos=True))
    assert len(list(good)) == 9
    assert isinstance(got[-1], AssertionError)
    assert sum(not isinstance(item, Chunk) for item in got) == 1
    engine.check()
    assert engine.metrics.failed == 1


@pytest.mark.parametrize("place", ["push", "counts"])
def test_a_fault_of_our_own_ends_in_an_error_and_not_the_engine(
    model: ToyModel, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    engine = Engine(model, drafts="ngram")
    owner: type = Sequence if place == "push" else Drafter
    original = getattr(owner, place)

    def broken(self: Any, *arguments: Any) -> Any:
        sequences = [self] if place == "push" else list(arguments[0])
        if any(sequence.request.prompt[0] == 13 and sequence.drawn == 2 for sequence in sequences):
            raise ZeroDivisionError
        return original(self, *arguments)

    monkeypatch.setattr(owner, place, broken)
    good = engine.stream([1] * 70, SamplingParams(max_tokens=9, ignore_eos=True))
    bad = engine.stream([13] * 70, SamplingParams(n=2, max_tokens=9, ignore_eos=True))
    with pytest.raises(ZeroDivisionError):
        list(bad)
    if place == "push":
        assert len(list(good)) == 9
    else:  # nobody can say whose fault a plan is that fails
        with pytest.raises(ZeroDivisionError):
            list(good)
    assert engine.generate([[1, 2]], SamplingParams(max_tokens=1))
    engine.check()
    assert engine.metrics.pages_used == 0


def test_a_request_that_failed_is_over(model: ToyModel, engine: Engine) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    got: list[object] = []
    engine.add("text", SamplingParams(max_tokens=3), got.append)
    model.before_step = fail
    engine.step()
    assert not engine.has_work
    engine.stop()
    assert [type(item) for item in got] == [ZeroDivisionError]
    assert (engine.metrics.failed, engine.metrics.aborted) == (1, 0)
    assert not engine._requests


def test_until_it_is_delivered_everything_is_work(
    model: ToyModel, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one who waits for a chunk takes its request for lost while another thread hands it out."""
    seen: list[bool] = []
    look = lambda item: seen.append(engine.has_work)  # noqa: E731
    add = engine._scheduler.add
    monkeypatch.setattr(engine._scheduler, "add", lambda sequence: (look(None), add(sequence)))
    model.before_step = lambda: look(None)
    engine.add("text", SamplingParams(max_tokens=3, ignore_eos=True), look)
    finish(engine)
    request_id = engine.add("text", SamplingParams(max_tokens=3, ignore_eos=True), look)
    engine.step()
    engine.abort(request_id)
    assert len(seen) > 9
    assert all(seen)


def test_an_abort_during_a_step_frees_the_pages_at_its_end(model: ToyModel, engine: Engine) -> None:
    request_id = engine.add([1] * 700, SamplingParams(max_tokens=2))
    model.before_step = lambda: engine.abort(request_id)
    engine.step()
    assert engine.metrics.pages_used == 0
    assert not engine.has_work


def test_a_closed_engine_takes_no_requests(model: ToyModel, engine: Engine) -> None:
    got: list[object] = []
    engine.add("text", SamplingParams(grammar=Grammar.regex("a+"), max_tokens=9), got.append)
    model.before_step = lambda: threading.Thread(target=engine.close).start()
    engine.step()
    assert not any(isinstance(item, Exception) for item in got)
    assert ends_in_time(lambda: finish(engine))
    with pytest.raises(EngineError, match="closed"):
        engine.add("text")


def test_an_abort_may_come_while_another_call_is_half_done(engine: Engine) -> None:
    """As a signal's handler or the end of a stream that the garbage collector finds: at any line, in this thread."""

    def trace(frame: Any, event: str, argument: object) -> Any:
        if Path(frame.f_code.co_filename).name not in ("engine.py", "threading.py"):
            return None
        sys.settrace(None)
        engine.abort(0)
        sys.settrace(trace)
        return trace

    def work() -> None:
        sys.settrace(trace)
        try:
            engine.add("text", SamplingParams(max_tokens=2))
            engine.wake()
        finally:
            sys.settrace(None)
        finish(engine)

    assert ends_in_time(work)


def test_a_sink_that_runs_the_engine_is_told(engine: Engine) -> None:
    errors: list[EngineError] = []

    def sink(item: object) -> None:
        for call in (engine.step, engine.check, engine.weights_changed, engine.close):
            try:
                call()
            except EngineError as error:
                errors.append(error)

    request_id = engine.add("text", SamplingParams(max_tokens=2, ignore_eos=True), sink)
    assert ends_in_time(lambda: (engine.step(), engine.abort(request_id)))
    assert len(errors) == 8
    assert "sink" in str(errors[0])


@pytest.mark.parametrize(
    "options",
    [
        {"top_k": 2**70},
        {"temperature": 10**400},
        {"temperature": 1e308},
        {"temperature": 5e-324},
        {"temperature": 1e-39},
        {"top_p": 5e-324},
        {"min_p": 5e-324},
        {"repetition_penalty": 5e-324},
        {"repetition_penalty": 1e308, "logit_bias": {0: -100}},
        {"min_tokens": 2**70},
        {"max_tokens": 2**70},
        {"seed": -(2**63)},
        {"seed": 2**63 - 1, "n": 128},
        {"stop_token_ids": (2**31 - 1,)},
    ],
)
def test_extreme_values_are_refused_by_name_or_answered_and_harm_nobody(engine: Engine, options: dict) -> None:
    (expected,) = engine.generate([[1, 2]], SamplingParams(max_tokens=5, seed=1))
    other = engine.stream([1, 2], SamplingParams(max_tokens=5, seed=1))
    try:
        completions = engine.generate([[3, 3]], SamplingParams(**{"max_tokens": 5, "min_tokens": 0} | options))
        assert all(sample.token_ids for sample in completions[0].samples)
    except RequestError as refusal:
        message = str(refusal)
        assert any(name in message for name in (*options, "context"))
    assert tuple(chunk.token_id for chunk in other) == expected.token_ids
