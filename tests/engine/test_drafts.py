"""Drafts change no token; how many are made is what pays; n-grams are found where they are."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from drafting_models import make_right, mtp_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_model import ToyModel
from workloads import Ask, alone, asks, together

from seamount.engine import Engine, Grammar, SamplingParams
from seamount.engine.drafts import MOST_DRAFTS, PROBE_EVERY, Drafter, Times
from seamount.engine.mtp_drafts import MTPDrafts
from seamount.engine.ngram_drafts import NGrams
from seamount.engine.request import Request, Sequence
from seamount.errors import ConfigError
from seamount.models.model import Model
from seamount.tokenizer import Tokenizer

MODELS = [("float32", 1), ("float32", 2), ("bfloat16", 1), ("int8", 1), ("int8", 2)]
EXTRAS = (
    {},
    {"repetition_penalty": 1.3, "presence_penalty": 0.4, "logit_bias": {65: 3.0}},
    {"stop": ("a", "e", "1")},
    {"grammar": Grammar.regex("[a-z]{2,9}x*")},
    {"min_tokens": 1, "top_k": 9},
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> dict[tuple[str, int], Model]:
    return {key: mtp_model(tmp_path_factory.mktemp("mtp"), tokenizer, *key) for key in MODELS}


def draft_always(monkeypatch: pytest.MonkeyPatch, seed: int | None = None) -> None:
    """As many drafts as there is room for, or a number by chance, whatever pays."""
    chance = random.Random(seed)

    def counts(self: Drafter, rooms: Mapping[Sequence, int]) -> dict[Sequence, int]:
        most = {one: MOST_DRAFTS if seed is None else chance.choice((0, 1, 2, 5)) for one in rooms}
        found = {one: min(room, most[one]) for one, room in rooms.items()}
        return {one: count for one, count in found.items() if count > 0} if self._source else {}

    monkeypatch.setattr(Drafter, "counts", counts)


def poison(engine: Engine) -> None:
    """Free pages hold nothing that could be read by mistake."""
    for page in engine._store._free:
        engine._store.pages.memory[page].fill_(255)


@pytest.mark.parametrize("key", MODELS, ids=str)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=5
)
@given(
    workload=asks(250, 100, 12).map(lambda found: found[:4]),
    extras=st.lists(st.sampled_from(EXTRAS), min_size=4, max_size=4),
    pages=st.integers(3, 9),
    step_tokens=st.integers(20, 90),
    seed=st.integers(0, 99),
)
def test_drafts_of_mtp_layers_change_no_answer(
    models: dict[tuple[str, int], Model],
    key: tuple[str, int],
    workload: list[Ask],
    extras: list[dict],
    pages: int,
    step_tokens: int,
    seed: int,
) -> None:
    model = models[key]
    workload = [replace(ask, params=replace(ask.params, **extra)) for ask, extra in zip(workload, extras, strict=False)]
    plain = Engine(model, memory="64MiB")
    expected = [alone(plain, ask) for ask in workload]
    options = {"step_tokens": step_tokens, "max_running": 3, "drafts": "mtp"}
    with pytest.MonkeyPatch.context() as monkeypatch:
        draft_always(monkeypatch, seed)
        monkeypatch.setattr(Engine, "_page_count", lambda self: pages)
        engine = Engine(model, **options)

        def look() -> None:
            engine.check()
            poison(engine)

        look()
        results = together(engine, workload, look)
        for result, answer, ask in zip(results, expected, workload, strict=True):
            assert result == answer or (result is None and ask.abort_at is not None)
        # And once more, now that much of it is cached.
        assert alone(engine, workload[0]) == expected[0]


@pytest.mark.parametrize("key", [("float32", 1), ("float32", 2), ("bfloat16", 1)], ids=str)
def test_drafts_are_what_the_layers_predict_without_a_cache(
    models: dict[tuple[str, int], Model], key: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, (_, layers) = models[key], key
    draw, seen = MTPDrafts._draw, 0

    def compare(
        self: MTPDrafts, hidden_BD: torch.Tensor, sequences: list[Sequence], drafts: dict[Sequence, list[int]]
    ) -> None:
        nonlocal seen
        for hidden_D, sequence in zip(hidden_BD, sequences, strict=True):
            if (place := len(drafts[sequence]) + 1) <= layers:
                tokens_BT = torch.tensor([sequence.tokens + drafts[sequence]])
                assert torch.equal(self._model.head(hidden_D[None])[0], model.mtp_logits(tokens_BT)[place - 1][0, -1])
                seen += 1
        draw(self, hidden_BD, sequences, drafts)

    draft_always(monkeypatch, seed=3)
    monkeypatch.setattr(MTPDrafts, "_draw", compare)
    engine = Engine(model, memory="64MiB", step_tokens=50, drafts="mtp")
    params = SamplingParams(max_tokens=24, seed=1, ignore_eos=True)
    engine.generate([[5, 6, 7] * 25, [9] * 30, [3, 2]], params)
    assert seen > 15 * layers


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_drafts_that_are_right_are_accepted(
    tmp_path: Path, tokenizer: Tokenizer, layers: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = mtp_model(tmp_path, tokenizer, layers=layers)
    make_right(model)
    params = SamplingParams(max_tokens=46, temperature=temperature, seed=5, n=2, ignore_eos=True)
    prompts = [[4] * 70, [7, 8, 9]]
    plain = Engine(model, memory="64MiB").generate(prompts, params)
    draft_always(monkeypatch)
    engine = Engine(model, memory="64MiB", drafts="mtp")
    assert [one.samples for one in engine.generate(prompts, params)] == [one.samples for one in plain]
    assert len(engine.metrics.accepted) == MOST_DRAFTS
    assert sum(engine.metrics.accepted) > 0.9 * sum(engine.metrics.drafted)
    # The prompts' step draws 1 token for each of four answers, and 5 more draw up to 9.
    assert engine.metrics.steps < 10


def test_pages_with_other_rows_are_other_pages_on_disk(models: dict[tuple[str, int], Model], tmp_path: Path) -> None:
    model, prompt, params = models["float32", 1], [[11, 12] * 80], SamplingParams(max_tokens=4, seed=1)
    answers = []
    for drafts in ("mtp", "mtp", "off"):
        with Engine(model, memory="64MiB", cache_directory=tmp_path / "cache", drafts=drafts) as engine:
            answers.append((engine.generate(prompt, params)[0].token_ids, engine.metrics.disk_hit_tokens))
    assert [tokens for tokens, _ in answers] == [answers[0][0]] * 3
    assert [hits for _, hits in answers] == [0, 128, 0]


def test_a_model_without_mtp_layers_is_refused_by_name(model: ToyModel) -> None:
    with pytest.raises(ConfigError, match=r"drafts = 'mtp'.*ngram"):
        Engine(model, drafts="mtp")


def test_drafts_of_ngrams_are_accepted_and_change_no_answer(model: ToyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    draft_always(monkeypatch)
    model.speak("abcde fgh ", then_end=False)
    params = SamplingParams(max_tokens=90, temperature=0)
    engine = Engine(model, memory="1MiB", drafts="ngram")
    assert engine.generate(["x", "y"], params)[0].text == "abcde fgh " * 9
    assert engine.metrics.steps < 35
    assert sum(engine.metrics.accepted) > 0.8 * sum(engine.metrics.drafted)


class Pretended:
    """A source, a sampler and a clock: each sequence's drafts are right by chance, and all times are made up."""

    needs_hidden = False

    def __init__(self, num_sequences: int, tokenizer: Tokenizer) -> None:
        self.sequences = [new_sequence([1, 2], tokenizer) for _ in range(num_sequences)]
        self.rates = dict.fromkeys(self.sequences, 0.5)
        self.now, self.guess_seconds = 0.0, 0.0
        self.fixed_seconds, self.token_seconds = 1.0, 0.0
        self.drafter = Drafter(self, clock=lambda: self.now)
        self._chance = random.Random(0)

    def guess(self, counts: Mapping[Sequence, int]) -> dict[Sequence, list[int]]:
        self.now += self.guess_seconds
        return {sequence: [0] * count for sequence, count in counts.items()}

    def step(self, room: int = 100, delay: float = 0.0) -> dict[Sequence, int]:
        """One step; the drafts that were made."""
        started = self.now
        counts = self.drafter.counts(dict.fromkeys(self.sequences, room))
        drafts = self.drafter.guess(counts)
        num_tokens = len(self.sequences) + sum(counts.values())
        self.now += self.fixed_seconds + self.token_seconds * num_tokens + delay
        for sequence, drafted in drafts.items():
            accepted = 0
            while accepted < len(drafted) and self._chance.random() < self.rates[sequence]:
                accepted += 1
            self.drafter.observe(sequence, len(drafted), accepted)
        self.drafter.time(num_tokens, self.now - started)
        return counts

    def mean(self, steps: int) -> float:
        """Drafts a sequence and step."""
        return sum(sum(self.step().values()) for _ in range(steps)) / steps / len(self.sequences)


def new_sequence(tokens: list[int], tokenizer: Tokenizer) -> Sequence:
    return Sequence(Request(tokens, SamplingParams(), 10**6, 0, lambda item: None), 0, tokenizer, None)


@pytest.mark.parametrize("num_sequences", [1, 16])
def test_what_costs_nothing_is_drafted_to_the_end(tokenizer: Tokenizer, num_sequences: int) -> None:
    pretended = Pretended(num_sequences, tokenizer)
    pretended.rates = dict.fromkeys(pretended.sequences, 0.9)
    assert pretended.step() == {}
    pretended.mean(10)
    assert pretended.mean(3 * PROBE_EVERY) > 0.9 * MOST_DRAFTS


@pytest.mark.parametrize("num_sequences", [1, 16])
@pytest.mark.parametrize(("fixed", "each", "guessing"), [(0.0, 1.0, 0.0), (1.0, 0.0, 30.0)], ids=["step", "guess"])
def test_what_costs_too_much_is_not_drafted(
    tokenizer: Tokenizer, num_sequences: int, fixed: float, each: float, guessing: float
) -> None:
    pretended = Pretended(num_sequences, tokenizer)
    pretended.fixed_seconds, pretended.token_seconds, pretended.guess_seconds = fixed, each, guessing
    pretended.mean(PROBE_EVERY)
    assert pretended.mean(4 * PROBE_EVERY) < 2 / PROBE_EVERY


def test_as_many_as_pay_are_drafted(tokenizer: Tokenizer) -> None:
    pretended = Pretended(1, tokenizer)
    pretended.fixed_seconds, pretended.token_seconds = 5.0, 1.0
    pretended.rates = dict.fromkeys(pretended.sequences, 0.6)
    # (1 - 0.6^(k+1)) / 0.4 tokens in 6 + k seconds: 0.167, 0.229, 0.245, 0.242, 0.231, ...: two are best.
    pretended.mean(2 * PROBE_EVERY)
    assert 1.3 < pretended.mean(10 * PROBE_EVERY) < 3.2


def test_the_sequence_whose_drafts_are_right_gets_them(tokenizer: Tokenizer) -> None:
    pretended = Pretended(8, tokenizer)
    pretended.fixed_seconds, pretended.token_seconds = 4.0, 1.0
    pretended.rates = {sequence: 0.95 * (number == 3) for number, sequence in enumerate(pretended.sequences)}
    pretended.mean(4 * PROBE_EVERY)
    steps = [pretended.step() for _ in range(2 * PROBE_EVERY)]
    given = [sum(step.get(sequence, 0) for step in steps) for sequence in pretended.sequences]
    assert given[3] > 3 * len(steps)
    assert sum(given) - given[3] < 0.5 * len(steps)


def test_who_rests_tries_again(tokenizer: Tokenizer) -> None:
    pretended = Pretended(4, tokenizer)
    pretended.token_seconds = 0.2
    pretended.rates = dict.fromkeys(pretended.sequences, 0.0)
    pretended.mean(20 * PROBE_EVERY)
    assert pretended.mean(4 * PROBE_EVERY) < 2 / PROBE_EVERY
    pretended.rates = dict.fromkeys(pretended.sequences, 1.0)
    pretended.mean(4 * PROBE_EVERY)
    assert pretended.mean(4 * PROBE_EVERY) > 3


def test_slow_steps_by_chance_stop_nothing(tokenizer: Tokenizer) -> None:
    pretended = Pretended(2, tokenizer)
    pretended.rates = dict.fromkeys(pretended.sequences, 0.9)
    # The first try of every size is slow, as where something is compiled.
    for _ in range(12):
        pretended.step(delay=1000)
    pretended.mean(24 * PROBE_EVERY)
    assert pretended.mean(PROBE_EVERY) > 0.9 * MOST_DRAFTS


def test_dear_steps_that_became_cheap_are_noticed(tokenizer: Tokenizer) -> None:
    pretended = Pretended(1, tokenizer)
    pretended.rates = dict.fromkeys(pretended.sequences, 0.9)
    pretended.token_seconds = 10.0
    pretended.mean(4 * PROBE_EVERY)
    pretended.token_seconds = 0.0
    pretended.mean(24 * PROBE_EVERY)
    assert pretended.mean(PROBE_EVERY) > 0.9 * MOST_DRAFTS


@given(rooms=st.lists(st.integers(-1, 5), min_size=1, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_nobody_gets_more_than_there_is_room_for(tokenizer: Tokenizer, rooms: list[int]) -> None:
    pretended = Pretended(len(rooms), tokenizer)
    asked = dict(zip(pretended.sequences, rooms, strict=True))
    for step in range(2 * PROBE_EVERY):
        counts = pretended.drafter.counts(asked)
        assert all(0 < count <= asked[sequence] for sequence, count in counts.items())
        pretended.drafter.time(4 + step, 1.0)
    assert Drafter().counts(asked) == {}


def test_times_are_medians_and_lines_between() -> None:
    times = Times(kept=3, forgotten_after=6)
    assert times(7) == 0
    for seconds in (2.0, 90.0, 1.0):
        times.observe(4, seconds)
    times.observe(8, 4.0)
    assert [times(size) for size in (1, 4, 5, 8, 99)] == [2.0, 2.0, 2.5, 4.0, 4.0]
    for _ in range(5):
        times.observe(4, 3.0)
    assert (times(8), times.largest) == (4.0, 8)
    times.observe(4, 3.0)
    assert (times(8), times.largest) == (3.0, 4)


@given(tokens=st.lists(st.integers(0, 3), min_size=1, max_size=60), count=st.integers(1, 9), cut=st.integers(1, 60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_ngrams_find_what_followed_last(tokenizer: Tokenizer, tokens: list[int], count: int, cut: int) -> None:
    source, sequence = NGrams(), new_sequence(tokens[:cut], tokenizer)
    source.guess({sequence: 1})
    sequence.tokens += tokens[cut:]
    last, places = tokens[-3:], range(3, len(tokens))
    place = next((place for place in reversed(places) if tokens[place - 3 : place] == last), None)
    following = [] if place is None else (tokens[place:] * count)[:count]
    # Two n-grams may want one entry of the table; so few never do.
    assert source.guess({sequence: count}) == {sequence: following}


def test_ngrams_take_no_more_memory_for_a_long_prompt(tokenizer: Tokenizer) -> None:
    chance = random.Random(0)
    beginning = [chance.randrange(256) for _ in range(300_000)]
    source, sequence = NGrams(), new_sequence([*beginning, *range(50), *range(20)], tokenizer)
    tracemalloc.start()
    guessed = source.guess({sequence: 4})
    memory, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert guessed == {sequence: [20, 21, 22, 23]}
    assert memory < 200_000
    del sequence, guessed
    assert not source._seen
