"""Anthropic's own client: each feature once."""

from __future__ import annotations

from functools import partial
from typing import Any

import anthropic
from features import RefusedAsStated, Result, raised, try_each
from served import CALLING, PLAIN, TIMEOUT, Served

MESSAGES: Any = [{"role": "user", "content": "What is a mountain under the sea called?"}]
# This client has no argument for the temperature any more; the API has.
COMMON: Any = {"model": PLAIN, "messages": MESSAGES, "max_tokens": 24, "extra_body": {"temperature": 0}}
WEATHER: Any = {
    "name": "weather",
    "description": "The weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["C", "F"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
    "strict": True,
}
FORCED: Any = {**COMMON, "model": CALLING, "max_tokens": 96, "tools": [WEATHER]}


def message(client: anthropic.Anthropic) -> None:
    """A message, whole."""
    answer = client.messages.create(**COMMON, system="You are a geologist.")
    assert answer.content[0].type == "text"
    assert answer.content[0].text
    assert answer.stop_reason in ("end_turn", "max_tokens")
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 0


def stream(client: anthropic.Anthropic) -> None:
    """A message, streamed: the same text as whole."""
    whole = client.messages.create(**COMMON)
    with client.messages.stream(**COMMON) as events:
        text = "".join(events.text_stream)
        final = events.get_final_message()
    assert whole.content[0].type == "text"
    assert text == whole.content[0].text
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens


def raw_events(client: anthropic.Anthropic) -> None:
    """The stream's events, in Anthropic's order."""
    kinds = [event.type for event in client.messages.create(**COMMON, stream=True)]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.index("content_block_start") < kinds.index("content_block_delta") < kinds.index("content_block_stop")


def stop_sequences(client: anthropic.Anthropic) -> None:
    """stop_sequences, and which of them it was."""
    whole = client.messages.create(**COMMON).content[0]
    assert whole.type == "text"
    word = whole.text.split()[2]
    answer = client.messages.create(**COMMON, stop_sequences=[word])
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", word)


def tools(client: anthropic.Anthropic) -> str:
    """Tools, a named one, whole and streamed."""
    asked = {**FORCED, "tool_choice": {"type": "tool", "name": "weather"}}
    answer = client.messages.create(**asked)
    (block,) = [one for one in answer.content if one.type == "tool_use"]
    assert answer.stop_reason == "tool_use"
    assert isinstance(block.input, dict)
    assert set(block.input) == {"city", "unit"}
    with client.messages.stream(**asked) as events:
        (streamed,) = [one for one in events.get_final_message().content if one.type == "tool_use"]
    assert streamed.input == block.input
    return f"`{block.input}`"


def tools_any(client: anthropic.Anthropic) -> None:
    """Tools, tool_choice any."""
    answer = client.messages.create(**FORCED, tool_choice={"type": "any", "disable_parallel_tool_use": True})
    assert [one.type for one in answer.content if one.type != "thinking"] == ["tool_use"]


def tool_result(client: anthropic.Anthropic) -> None:
    """A tool's result sent back."""
    used: Any = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Kiel", "unit": "C"}}
    result: Any = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "12 C"}]}
    messages = [*MESSAGES, {"role": "assistant", "content": [used]}, {"role": "user", "content": [result]}]
    assert client.messages.create(**{**FORCED, "messages": messages}).content


def count_tokens(client: anthropic.Anthropic) -> None:
    """count_tokens: what the message then says."""
    counted = client.messages.count_tokens(model=PLAIN, messages=MESSAGES).input_tokens
    usage = client.messages.create(**COMMON).usage
    assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def thinking(client: anthropic.Anthropic) -> None:
    """thinking, enabled and disabled."""
    asked = {**COMMON, "model": CALLING, "max_tokens": 1100}
    client.messages.create(**asked, thinking={"type": "disabled"}, stop_sequences=["."])
    client.messages.create(**asked, thinking={"type": "enabled", "budget_tokens": 1024}, stop_sequences=["."])


def models(client: anthropic.Anthropic) -> None:
    """Models."""
    assert PLAIN in [model.id for model in client.models.list()]


def errors(client: anthropic.Anthropic) -> None:
    """Errors as the client's own classes."""
    for kind, more in (
        (anthropic.NotFoundError, {"model": "no-such"}),
        (anthropic.BadRequestError, {"extra_body": {"temperature": -1}}),
        (anthropic.BadRequestError, {"max_tokens": 0}),
    ):
        asked = {**COMMON, **more}
        error = raised(kind, partial(client.messages.create, **asked))
        assert isinstance(error.body, dict)
        assert error.body["type"] == "error"
        assert error.body["error"]["message"]


def images(client: anthropic.Anthropic) -> None:
    """Images."""
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    messages: Any = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    asked = {**COMMON, "messages": messages}
    error = raised(anthropic.BadRequestError, lambda: client.messages.create(**asked))
    raise RefusedAsStated(error.message)


FEATURES = (
    message, stream, raw_events, stop_sequences, tools, tools_any, tool_result, count_tokens, thinking, models, errors,
    images,
)  # fmt: skip


def results(served: Served) -> list[Result]:
    """What Anthropic's client finds."""
    with anthropic.Anthropic(base_url=served.url, api_key="none", max_retries=0, timeout=TIMEOUT) as client:
        return try_each("anthropic", FEATURES, client)
