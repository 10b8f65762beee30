"""Anthropic's clients and a server that asks for keys."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import anthropic
import pytest

from seamount.server import Service
from seamount.server.metering import KeyTerms

ASK: dict[str, Any] = {"model": "org/toy", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}


def test_keys_are_taken_in_either_header(service: Service, url: str) -> None:
    secret = service.keys.add("someone")

    def client(**key: str) -> anthropic.Anthropic:
        return anthropic.Anthropic(base_url=url, max_retries=0, timeout=20, **key)

    for key in ({"api_key": secret}, {"auth_token": secret}):
        with client(**key) as known:
            assert known.messages.create(**ASK).type == "message"
            assert known.messages.count_tokens(model="org/toy", messages=ASK["messages"]).input_tokens
    with client(api_key="sk-other") as unknown:
        with pytest.raises(anthropic.AuthenticationError) as caught:
            unknown.messages.create(**ASK, stream=True)
        with pytest.raises(anthropic.AuthenticationError):
            unknown.messages.count_tokens(model="org/toy", messages=ASK["messages"])
    assert caught.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]


def test_limits_are_told_in_anthropics_headers(service: Service, url: str) -> None:
    secret = service.keys.add("hasty", KeyTerms(requests_per_minute=2, tokens_per_minute=1000))
    kinds = {"requests": 2, "tokens": 1000}
    with anthropic.Anthropic(base_url=url, max_retries=0, timeout=20, api_key=secret) as client:
        began = int(time.time())
        answers = [client.messages.with_raw_response.create(**ASK, stream=stream).headers for stream in (False, True)]
        with pytest.raises(anthropic.RateLimitError) as caught:
            client.messages.create(**ASK)
    refused = caught.value.response.headers
    assert 1 <= int(refused["retry-after"]) <= 60
    for headers in (*answers, refused):
        assert not [name for name in headers if name.startswith("x-ratelimit")]
        assert {kind: int(headers[f"anthropic-ratelimit-{kind}-limit"]) for kind in kinds} == kinds
        for kind in kinds:
            reset = headers[f"anthropic-ratelimit-{kind}-reset"]
            assert reset.endswith("Z")
            assert began < datetime.fromisoformat(reset).timestamp() <= time.time() + 61
    assert [one["anthropic-ratelimit-requests-remaining"] for one in (*answers, refused)] == ["1", "0", "0"]
    assert 0 < int(answers[0]["anthropic-ratelimit-tokens-remaining"]) < 1000
