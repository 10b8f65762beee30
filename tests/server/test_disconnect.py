"""Clients that hang up: their work stops, and others get their turn."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import replace

import httpx
import pytest
from toy_model import ToyModel

from seamount.engine import Engine

CHAT = {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0}


@pytest.fixture
def endless(model: ToyModel) -> ToyModel:
    """An answer of forty seconds: 4,096 tokens of ten milliseconds."""
    model.speak("on and on ", then_end=False)
    model.before_step = lambda: time.sleep(0.01)
    return model


def require_idle(model: ToyModel, http: httpx.Client) -> None:
    """The next request is answered, and nothing else works any more."""
    assert http.post("/v1/completions", json={"prompt": "x", "max_tokens": 1}).status_code == 200
    model.come_to_rest()


def test_a_stream_that_is_left_stops(endless: ToyModel, http: httpx.Client) -> None:
    endless.step_sizes.clear()
    with http.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as response:
        lines = response.iter_lines()
        assert any('"content":"o' in line for line in lines)
    require_idle(endless, http)


def test_a_whole_answer_that_nobody_awaits_stops(endless: ToyModel, http: httpx.Client) -> None:
    endless.step_sizes.clear()
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json=CHAT, timeout=httpx.Timeout(20, read=1))
    assert endless.step_sizes
    require_idle(endless, http)


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_leaves_the_queue_is_never_begun(
    endless: ToyModel, engine: Engine, http: httpx.Client, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine._scheduler, "_config", replace(engine.config, max_running=1))
    endless.step_sizes.clear()
    with http.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as first:
        lines = first.iter_lines()
        assert next(lines)

        def wait_in_vain() -> None:
            with contextlib.suppress(httpx.ReadTimeout):
                body = {"prompt": "a" * 77, "stream": stream}
                httpx.post(http.base_url.join("/v1/completions"), json=body, timeout=httpx.Timeout(20, read=0.2))

        thread = threading.Thread(target=wait_in_vain)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
    require_idle(endless, http)
    assert 77 not in endless.step_sizes
