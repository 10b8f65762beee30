"""Anthropic's own client against the server."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import anthropic
import httpx
import pytest
from toy_model import ToyModel

from seamount.engine import Engine
from seamount.server import Service
from seamount.server.limits import MAX_BODY_BYTES

MODEL = "org/toy"
TEXT = "Grüße ☃!"
ASK: dict[str, Any] = {"model": MODEL, "max_tokens": 64}
MESSAGES: Any = [{"role": "user", "content": "Hi"}]
PROMPT_TOKENS = len("user:Hi\na:")
OUTPUT_TOKENS = len(TEXT.encode()) + 1


def counts(usage: anthropic.types.Usage) -> tuple[int, int]:
    """Tokens in and out."""
    return usage.input_tokens + (usage.cache_read_input_tokens or 0), usage.output_tokens


def sent_events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Names and data of a stream's events; nothing else may be in it."""
    events = []
    for one in text.removesuffix("\n\n").split("\n\n"):
        name, data = one.split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events


def test_a_message(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(**ASK, messages=MESSAGES)
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", MODEL)
    assert [block.model_dump(exclude_none=True) for block in answer.content] == [{"type": "text", "text": TEXT}]
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert counts(answer.usage) == (PROMPT_TOKENS, OUTPUT_TOKENS)
    assert answer.usage.cache_creation_input_tokens == 0
    assert answer._request_id


def test_fields_that_anthropics_schema_demands_are_there_without_a_value(http: httpx.Client) -> None:
    message = http.post("/v1/messages", json={**ASK, "messages": MESSAGES}).json()
    for where, names in (
        (message, ("stop_details", "container")),
        (message["usage"], ("cache_creation", "inference_geo", "server_tool_use")),
        (message["content"][0], ("citations",)),
    ):
        assert {name: where[name] for name in names} == dict.fromkeys(names)


def test_a_stream(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(**ASK, messages=MESSAGES) as stream:
        assert "".join(stream.text_stream) == TEXT
        answer = stream.get_final_message()
        assert stream.request_id
    assert answer.stop_reason == "end_turn"
    assert counts(answer.usage) == (PROMPT_TOKENS, OUTPUT_TOKENS)


def test_the_events_of_a_stream(http: httpx.Client) -> None:
    response = http.post("/v1/messages", json={**ASK, "messages": MESSAGES, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [one for one in sent_events(response.text) if one[0] != "ping"]
    assert all(name == data["type"] for name, data in events)
    (_, first), (_, begin), *deltas, (_, stop), (_, end), (_, last) = events
    message = first["message"]
    assert first["type"] == "message_start"
    assert (message["content"], message["stop_reason"], message["stop_sequence"]) == ([], None, None)
    assert message["usage"]["input_tokens"] + message["usage"]["cache_read_input_tokens"] == PROMPT_TOKENS
    block = {"type": "text", "text": "", "citations": None}
    assert begin == {"type": "content_block_start", "index": 0, "content_block": block}
    assert {(data["type"], data["index"], data["delta"]["type"]) for _, data in deltas} == {
        ("content_block_delta", 0, "text_delta")
    }
    assert "".join(data["delta"]["text"] for _, data in deltas) == TEXT
    assert stop == {"type": "content_block_stop", "index": 0}
    assert end["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert end["usage"]["output_tokens"] == OUTPUT_TOKENS
    assert last == {"type": "message_stop"}


@pytest.mark.parametrize("is_stream", [False, True])
def test_what_the_cache_held_is_counted_apart(claude: anthropic.Anthropic, is_stream: bool) -> None:
    long: Any = [{"role": "user", "content": f"{is_stream}" * 50}]
    counted = claude.messages.count_tokens(model=MODEL, messages=long).input_tokens
    hits = []
    for _ in range(2):
        if is_stream:
            first, *_ = claude.messages.create(**ASK, messages=long, stream=True)
            assert isinstance(first, anthropic.types.RawMessageStartEvent)
            usage = first.message.usage
        else:
            usage = claude.messages.create(**ASK, messages=long).usage
        assert counts(usage)[0] == counted
        hits.append(usage.cache_read_input_tokens or 0)
    assert hits[0] < 64 < 128 <= hits[1]


def test_stop_reasons(claude: anthropic.Anthropic) -> None:
    def ask(**options: Any) -> tuple[str, str | None, str | None]:
        answer = claude.messages.create(**{**ASK, **options}, messages=MESSAGES)
        with claude.messages.stream(**{**ASK, **options}, messages=MESSAGES) as stream:
            assert stream.get_final_message().model_dump(exclude={"id", "usage"}) == answer.model_dump(
                exclude={"id", "usage"}
            )
        assert answer.content[0].type == "text"
        return answer.content[0].text, answer.stop_reason, answer.stop_sequence

    assert ask(max_tokens=2) == ("Gr", "max_tokens", None)
    assert ask(stop_sequences=["x", "ße"]) == ("Grü", "stop_sequence", "ße")
    assert ask(stop_sequences=["none"]) == (TEXT, "end_turn", None)


def test_sampling_arrives(claude: anthropic.Anthropic, model: ToyModel) -> None:
    model.script = []

    def ask(**options: Any) -> Any:
        # The client itself has no words for these any more.
        return claude.messages.create(**{**ASK, "max_tokens": 30}, messages=MESSAGES, extra_body=options).content

    greedy = ask(temperature=0)
    assert ask(top_k=1) == ask(top_p=1e-9) == greedy
    assert ask() != greedy


def test_models_are_named_as_claudes_too(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(**{**ASK, "model": "claude-opus-4-1"}, messages=MESSAGES)
    assert answer.model == MODEL
    with pytest.raises(anthropic.NotFoundError, match="'other'"):
        claude.messages.create(**{**ASK, "model": "other"}, messages=MESSAGES)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"system": "Be brief."},
        {"system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
        {"messages": [*MESSAGES, {"role": "assistant", "content": "Once"}]},
    ],
)
def test_counted_tokens_are_those_of_the_message(claude: anthropic.Anthropic, options: dict[str, Any]) -> None:
    ask = {"model": MODEL, "messages": MESSAGES, **options}
    usage = claude.messages.create(**ask, max_tokens=1).usage
    assert claude.messages.count_tokens(**ask).input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


@pytest.mark.parametrize("prefix", ["/v1", "", "/anthropic/v1", "/anthropic"])
def test_all_paths_answer(http: httpx.Client, prefix: str) -> None:
    ask = {**ASK, "messages": MESSAGES}
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "a,b"}
    response = http.post(f"{prefix}/messages?beta=true", json=ask, headers=headers)
    assert response.json()["content"][0]["text"] == TEXT
    assert response.headers["request-id"] == response.headers["x-request-id"]
    assert http.post(f"{prefix}/messages/count_tokens", json=ask).json() == {"input_tokens": PROMPT_TOKENS}


def test_the_schema_describes_the_paths(http: httpx.Client) -> None:
    schema = http.get("/openapi.json").json()
    for path, name in [("/v1/messages", "MessagesBody"), ("/v1/messages/count_tokens", "CountBody")]:
        content = schema["paths"][path]["post"]["requestBody"]["content"]
        assert content["application/json"]["schema"]["$ref"].endswith(f"/{name}")
    known = {f"#/components/schemas/{name}" for name in schema["components"]["schemas"]}
    assert set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(schema))) <= known


@pytest.mark.parametrize(
    "options",
    [
        {"metadata": {"user_id": "u"}, "service_tier": "auto", "no_such_field": 1, "mcp_servers": []},
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}, "tool_choice": {"type": "auto"}},
        {"thinking": {"type": "disabled"}, "tools": [], "stop_sequences": [], "cache_control": {"type": "ephemeral"}},
    ],
)
def test_options_that_ask_this_model_for_nothing_are_taken(http: httpx.Client, options: dict[str, Any]) -> None:
    response = http.post("/v1/messages", json={**ASK, "messages": MESSAGES, **options})
    assert response.json()["content"][0]["text"] == TEXT


def refusal(response: httpx.Response, status: int, kind: str) -> str:
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"type", "error", "request_id"}
    assert (body["type"], body["error"]["type"]) == ("error", kind)
    assert body["request_id"] == response.headers["request-id"]
    return body["error"]["message"]


TOOL = {"name": "f", "input_schema": {"type": "object"}}


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 5000}, "4096"),
        ({"model": 5}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "role"),
        ({"messages": [{"role": "user", "content": []}]}, "content"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "'image'"),
        ({"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]}, "'document'"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use"}]}]}, "'tool_use'"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"system": [{"type": "image"}]}, "system"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"stop_sequences": "x"}, "stop_sequences"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "'web_search_20250305'"),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "'g'"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"thinking": {"type": "perhaps"}}, "thinking"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "does not think"),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
    ],
)
def test_what_is_malformed_or_not_implemented_is_refused_by_name(
    http: httpx.Client, options: dict[str, Any], field: str
) -> None:
    body = {**ASK, "messages": MESSAGES, **options}
    body = {name: value for name, value in body.items() if value is not None}
    for stream in (False, True):
        response = http.post("/anthropic/v1/messages", json={**body, "stream": stream})
        assert field in refusal(response, 400, "invalid_request_error")


def test_other_refusals_have_the_same_form(http: httpx.Client) -> None:
    def send(content: bytes, kind: str = "application/json") -> httpx.Response:
        return http.post("/v1/messages", content=content, headers={"Content-Type": kind})

    refusal(send(b"{}", "text/plain"), 415, "invalid_request_error")
    refusal(send(b"{"), 400, "invalid_request_error")
    assert str(MAX_BODY_BYTES) in refusal(send(b" " * (MAX_BODY_BYTES + 1)), 413, "request_too_large")
    refusal(http.get("/v1/messages"), 405, "invalid_request_error")
    refusal(http.get("/anthropic/v1/none"), 404, "not_found_error")
    refusal(http.post("/v1/messages/batches", json={}), 404, "not_found_error")


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_an_error_that_nobody_foresaw_has_the_same_form(
    service: Service, http: httpx.Client, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(service.models[MODEL].format, "thinking_variables", fail)
    message = refusal(http.post(path, json={**ASK, "messages": MESSAGES}), 500, "api_error")
    assert "secret" not in message


def test_a_failure_within_a_stream_is_an_event(claude: anthropic.Anthropic, model: ToyModel) -> None:
    def fail_later() -> None:
        if model.step_sizes[-1] == 1:
            raise ZeroDivisionError("a secret")

    model.step_sizes.append(0)
    model.before_step = fail_later
    with pytest.raises(anthropic.APIStatusError, match="failed on this request") as caught:
        list(claude.messages.create(**ASK, messages=MESSAGES, stream=True))
    assert "secret" not in str(caught.value)
    body: Any = caught.value.body
    assert body["error"]["type"] == "api_error"
    assert body["request_id"] == caught.value.response.headers["request-id"]


@pytest.mark.parametrize("is_stream", [False, True])
def test_who_hangs_up_frees_the_engine(
    claude: anthropic.Anthropic, http: httpx.Client, model: ToyModel, engine: Engine, is_stream: bool
) -> None:
    model.speak("on and on ", then_end=False)
    model.before_step = lambda: time.sleep(0.01)
    ask = {**ASK, "messages": MESSAGES, "max_tokens": 4000}
    if is_stream:
        with claude.messages.create(**ask, stream=True) as stream:
            assert next(iter(stream)).type == "message_start"
    else:
        with pytest.raises(anthropic.APITimeoutError):
            claude.with_options(timeout=1).messages.create(**ask)
    assert http.post("/v1/completions", json={"prompt": "x", "max_tokens": 1}).status_code == 200
    model.come_to_rest()
    assert engine.metrics.snapshot()["running"] == 0
