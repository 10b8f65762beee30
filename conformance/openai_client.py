"""OpenAI's own client: each feature once."""

from __future__ import annotations

import json
from functools import partial
from typing import Any, Literal

import openai
from features import RefusedAsStated, Result, raised, try_each
from pydantic import BaseModel
from served import CALLING, PLAIN, SHORT, TIMEOUT, Served

MESSAGES: Any = [{"role": "user", "content": "What is a mountain under the sea called?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
TIME: Any = {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}}}}
COMMON: Any = {"model": PLAIN, "messages": MESSAGES, "max_tokens": 24, "temperature": 0}
FORCED: Any = {**COMMON, "model": CALLING, "max_tokens": 96}


class Mountain(BaseModel):
    """What an answer is read into."""

    kind: Literal["volcano", "ridge"]
    metres: Literal[1000, 2000, 3000]


def chat(client: openai.OpenAI) -> None:
    """Chat, whole."""
    answer = client.chat.completions.create(**COMMON)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def stream(client: openai.OpenAI) -> None:
    """Chat, streamed, with usage: the same text as whole."""
    whole = client.chat.completions.create(**COMMON)
    *pieces, counted = client.chat.completions.create(**COMMON, stream=True, stream_options={"include_usage": True})
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(one.choices[0].delta.content or "" for one in pieces) == whole.choices[0].message.content
    assert pieces[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert counted.choices == []
    assert counted.usage is not None
    assert whole.usage is not None
    assert counted.usage.completion_tokens == whole.usage.completion_tokens


def stream_helper(client: openai.OpenAI) -> None:
    """The client's own helper for streams (`chat.completions.stream`)."""
    with client.chat.completions.stream(**{**COMMON, "max_tokens": 200}, stop=["."]) as events:
        kinds = {event.type for event in events}
        final = events.get_final_completion()
    assert {"content.delta", "content.done", "chunk"} <= kinds
    assert final.choices[0].message.content


def several(client: openai.OpenAI) -> None:
    """n = 2, whole and streamed."""
    asked = {**COMMON, "n": 2, "temperature": 1, "seed": 3}
    texts = [choice.message.content for choice in client.chat.completions.create(**asked).choices]
    streamed = ["", ""]
    for piece in client.chat.completions.create(**asked, stream=True):
        streamed[piece.choices[0].index] += piece.choices[0].delta.content or ""
    assert streamed == texts
    assert texts[0] != texts[1]


def logprobs(client: openai.OpenAI) -> None:
    """logprobs and top_logprobs."""
    answer = client.chat.completions.create(**COMMON, logprobs=True, top_logprobs=3)
    scored = answer.choices[0].logprobs
    assert scored is not None
    assert scored.content
    assert "".join(one.token for one in scored.content).startswith((answer.choices[0].message.content or "")[:10])
    for one in scored.content:
        assert len(one.top_logprobs) == 3
        assert one.logprob == max(other.logprob for other in one.top_logprobs)


def seed(client: openai.OpenAI) -> None:
    """seed: the same one draws the same text, another one another."""

    def drawn(number: int) -> str | None:
        answer = client.chat.completions.create(**{**COMMON, "temperature": 1, "seed": number})
        return answer.choices[0].message.content

    assert drawn(1) == drawn(1) != drawn(2)


def stop(client: openai.OpenAI) -> None:
    """stop."""
    whole = client.chat.completions.create(**COMMON).choices[0].message.content or ""
    word = whole.split()[2]
    answer = client.chat.completions.create(**COMMON, stop=[word])
    assert answer.choices[0].message.content == whole.partition(word)[0]
    assert answer.choices[0].finish_reason == "stop"


def json_mode(client: openai.OpenAI) -> str | None:
    """JSON mode."""
    messages: Any = [{"role": "user", "content": "A mountain as a JSON object with a name and a height"}]
    asked = {**COMMON, "messages": messages, "max_tokens": 128}
    answer = client.chat.completions.create(**asked, response_format={"type": "json_object"}).choices[0]
    if answer.finish_reason == "length":
        assert (answer.message.content or "").lstrip().startswith("{")
        return "the model did not end within 128 tokens; the beginning of an object came"
    assert isinstance(json.loads(answer.message.content or ""), dict)
    return None


def parsed(client: openai.OpenAI) -> None:
    """JSON schema, by `chat.completions.parse`."""
    answer = client.chat.completions.parse(**{**COMMON, "max_tokens": 96}, response_format=Mountain)
    assert isinstance(answer.choices[0].message.parsed, Mountain)


def tools_auto(client: openai.OpenAI) -> None:
    """Tools, tool_choice auto: an answer or calls."""
    answer = client.chat.completions.create(**FORCED, tools=[WEATHER]).choices[0]
    assert answer.message.content or answer.message.tool_calls


def tools_required(client: openai.OpenAI) -> None:
    """Tools, tool_choice required, one call at most."""
    asked = {**FORCED, "tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False}
    asked["tools"] = [{"type": "function", "function": {**WEATHER["function"], "strict": True}}]
    answer = client.chat.completions.create(**asked).choices[0]
    (call,) = answer.message.tool_calls or ()
    assert answer.finish_reason == "tool_calls"
    assert set(json.loads(call.function.arguments)) == {"city", "unit"}


def tools_named(client: openai.OpenAI) -> str:
    """Tools, a named one, streamed: the same call as whole."""
    asked = {**FORCED, "tools": [TIME, WEATHER], "tool_choice": {"type": "function", "function": {"name": "weather"}}}
    asked["tools"] = [TIME, {"type": "function", "function": {**WEATHER["function"], "strict": True}}]
    (whole,) = client.chat.completions.create(**asked).choices[0].message.tool_calls or ()
    name, arguments, reasons = "", "", []
    for piece in client.chat.completions.create(**asked, stream=True):
        reasons.append(piece.choices[0].finish_reason)
        for call in piece.choices[0].delta.tool_calls or ():
            assert call.function is not None
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    assert (name, arguments) == (whole.function.name, whole.function.arguments)
    assert reasons[-1] == "tool_calls"
    assert json.loads(arguments)["unit"] in ("C", "F")
    return f"`{arguments}`"


def tools_strict(client: openai.OpenAI) -> None:
    """Strict tools, by `chat.completions.parse` with a tool of pydantic's."""
    tool = openai.pydantic_function_tool(Mountain)
    answer = client.chat.completions.parse(**FORCED, tools=[tool], tool_choice="required", parallel_tool_calls=False)
    (call,) = answer.choices[0].message.tool_calls or ()
    assert isinstance(call.function.parsed_arguments, Mountain)


def tool_result(client: openai.OpenAI) -> None:
    """A tool's result sent back."""
    call: Any = {"id": "call_1", "type": "function", "function": {"name": "time", "arguments": "{}"}}
    messages = [
        *MESSAGES,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "12:00"},
    ]
    answer = client.chat.completions.create(**{**FORCED, "messages": messages}, tools=[TIME])
    assert answer.choices[0].message.content or answer.choices[0].message.tool_calls


def tools_in_words(client: openai.OpenAI) -> None:
    """Tools of a model whose template knows none: required and strict."""
    tool = openai.pydantic_function_tool(Mountain)
    asked = {**COMMON, "max_tokens": 96, "tool_choice": "required", "parallel_tool_calls": False}
    (call,) = client.chat.completions.parse(**asked, tools=[tool]).choices[0].message.tool_calls or ()
    assert isinstance(call.function.parsed_arguments, Mountain)


def thinking(client: openai.OpenAI) -> str:
    """reasoning_effort; `reasoning_content` apart from the content."""
    answer = client.chat.completions.create(**{**FORCED, "max_tokens": 16}, reasoning_effort="high").choices[0].message
    off = client.chat.completions.create(**FORCED, reasoning_effort="none").choices[0].message
    assert off.content
    assert not hasattr(off, "reasoning_content")
    return "the model writes no reasoning of its own" if not hasattr(answer, "reasoning_content") else ""


def completions(client: openai.OpenAI) -> None:
    """Completions with echo and logprobs."""
    answer = client.completions.create(
        model=PLAIN, prompt="The sea is", max_tokens=3, temperature=0, echo=True, logprobs=2
    )
    scored = answer.choices[0].logprobs
    assert answer.choices[0].text.startswith("The sea is")
    assert scored is not None
    assert scored.token_logprobs is not None
    assert scored.token_logprobs[0] is None
    assert "".join(scored.tokens or ()) == answer.choices[0].text


def several_prompts(client: openai.OpenAI) -> None:
    """Completions of several prompts, streamed."""
    texts = ["", ""]
    for piece in client.completions.create(model=PLAIN, prompt=["One", "Two"], max_tokens=5, stream=True):
        texts[piece.choices[0].index] += piece.choices[0].text
    assert all(texts)


def suffix(client: openai.OpenAI) -> None:
    """suffix, of a model that has no tokens for it."""
    error = raised(openai.BadRequestError, lambda: client.completions.create(model=PLAIN, prompt="One", suffix="Three"))
    assert error.param == "suffix", f"param = {error.param!r}: {error.message}"
    raise RefusedAsStated(error.message)


def models(client: openai.OpenAI) -> None:
    """Models, listed and one by one."""
    assert [model.id for model in client.models.list()] == [PLAIN, CALLING, SHORT]
    assert client.models.retrieve(CALLING).id == CALLING


def errors(client: openai.OpenAI) -> None:
    """Errors as the client's own classes, with param and code."""
    for kind, more, param in (
        (openai.NotFoundError, {"model": "no-such"}, "model"),
        (openai.BadRequestError, {"temperature": -1}, "temperature"),
        (openai.BadRequestError, {"max_tokens": 10**7}, "max_tokens"),
    ):
        asked = {**COMMON, **more}
        error = raised(kind, partial(client.chat.completions.create, **asked))
        assert error.param == param, f"param = {error.param!r} for {more}"


def asynchronous(client: openai.OpenAI) -> None:
    """The asynchronous client."""
    import asyncio

    async def ask() -> str:
        same: Any = {"base_url": client.base_url, "api_key": "none", "max_retries": 0, "timeout": TIMEOUT}
        async with openai.AsyncOpenAI(**same) as other:
            return "".join(
                [
                    piece.choices[0].delta.content or ""
                    async for piece in await other.chat.completions.create(**COMMON, stream=True)
                ]
            )

    assert asyncio.run(ask())


def raw(client: openai.OpenAI) -> None:
    """The request's id, which the client shows."""
    assert client.chat.completions.create(**COMMON)._request_id


def responses(client: openai.OpenAI) -> None:
    """Responses API."""
    error = raised(openai.NotFoundError, lambda: client.responses.create(model=PLAIN, input="Hi"))
    raise RefusedAsStated(f"not implemented: {error.message}")


def embeddings(client: openai.OpenAI) -> None:
    """Embeddings."""
    error = raised(openai.NotFoundError, lambda: client.embeddings.create(model=PLAIN, input="Hi"))
    raise RefusedAsStated(f"not implemented: {error.message}")


FEATURES = (
    chat, stream, stream_helper, several, logprobs, seed, stop, json_mode, parsed, tools_auto, tools_required,
    tools_named, tools_strict, tool_result, tools_in_words, thinking, completions, several_prompts, suffix, models,
    errors, asynchronous, raw, responses, embeddings,
)  # fmt: skip


def results(served: Served) -> list[Result]:
    """What OpenAI's client finds."""
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=TIMEOUT) as client:
        return try_each("openai", FEATURES, client)
