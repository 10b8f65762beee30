"""The checks of bench/load.py, at the size of a test: twenty clients for a few seconds over the toy model."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from toy_model import ToyModel

from seamount.evaluate import shipped_texts
from seamount.server import Service
from seamount.server.metering import Records

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from after_load import at_rest, unwritten, when_idle
from crowd import Address, Asked, Crowd, Question, ask_alone, cases_of
from light_client import Answer, Choice


@pytest.fixture
def address(url: str, model: ToyModel) -> Address:
    # Without a script every prompt has an answer of its own.
    model.script = []
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0


@pytest.fixture
def questions(address: Address) -> list[Question]:
    cases = cases_of(shipped_texts()[0].content, 18, size=80)
    return asyncio.run(ask_alone(address, cases))


def open_tasks() -> int:
    gc.collect()
    return sum(type(one) is asyncio.Task and not one.done() for one in gc.get_objects())


@pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read from Linux's /proc")
def test_answers_under_load_are_those_got_alone_and_nothing_remains(
    service: Service, address: Address, questions: list[Question]
) -> None:
    assert len(questions) >= 15
    assert len({one.case.path for one in questions}) == 2
    warm = Crowd(address, questions, 20, seed=1, typical_seconds=0.2)
    asyncio.run(warm.run(1))
    assert asyncio.run(when_idle(address)) == {}
    before, tasks = asyncio.run(at_rest(os.getpid())), open_tasks()
    asked, ends = list(warm.asked), Counter[str]()
    for seed in range(2, 10):
        crowd = Crowd(address, questions, 20, seed=seed, typical_seconds=0.2)
        asyncio.run(crowd.run(4))
        asked += crowd.asked
        ends += Counter(crowd.ends)
        if ends["whole"] > 20 and ends["left"] > 5:
            break  # a busy machine answers fewer in four seconds
    assert asyncio.run(when_idle(address)) == {}
    after = asyncio.run(at_rest(os.getpid(), before.files))
    assert [one.fault for one in asked if one.fault] == []
    assert unwritten(asked, Records(service.ledger.path).rows()) == []
    assert ends["whole"] > 20
    assert ends["left"] > 5
    assert set(ends) == {"whole", "left"}
    assert after.sockets <= before.sockets
    assert after.files <= before.files
    assert open_tasks() <= tasks
    assert not service.live


def asked(**more: Any) -> Asked:
    """A question and its right answer, but for what is given."""
    case = cases_of("abc " * 50, 1, size=20)[0]
    right = {0: Choice("text", [-0.5], "stop")}
    answer = Answer("crowd-1", "whole", choices=right, usage={"completion_tokens": 3})
    return Asked(Question(case, right, 3), replace(answer, **more), is_stream=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"choices": {0: Choice("another text", [-0.5], "stop")}},
        {"choices": {0: Choice("text", [-0.50000001], "stop")}},
        {"choices": {0: Choice("text", [-0.5], "length")}},
        {"choices": {0: Choice("text", [-0.5], "stop"), 1: Choice("text", [-0.5], "stop")}},
        {"usage": {"completion_tokens": 4}},
        {"usage": None},
        {"end": "broken"},
    ],
)
def test_a_wrong_answer_is_seen(wrong: dict[str, Any]) -> None:
    assert asked().fault is None
    assert asked(end="left", choices={}).fault is None
    assert asked(**wrong).fault


def test_what_the_ledger_lacks_is_seen() -> None:
    def row(**more: Any) -> Any:
        values = {"request_id": "crowd-1", "outcome": "answered", "output_tokens": 3} | more
        return type("Row", (), values)

    assert unwritten([asked()], [row()]) == []
    for rows in ([], [row(), row()], [row(outcome="cancelled")], [row(output_tokens=2)], [row(), row(request_id="x")]):
        assert len(unwritten([asked()], rows)) == 1
    left = asked(end="left")
    assert unwritten([left], []) == unwritten([left], [row(outcome="cancelled")]) == []
    assert len(unwritten([left], [row(outcome="failed")])) == 1
    # Killed between an answer's last token and the end of its stream.
    broken = asked(end="broken")
    assert unwritten([broken], [], is_killed=True)
    assert unwritten([broken], [row()], is_killed=True) == []
