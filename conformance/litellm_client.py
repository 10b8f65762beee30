"""LiteLLM, which puts many APIs behind one: ours as OpenAI's, as DeepSeek's and as Anthropic's."""

from __future__ import annotations

import json
import os
from typing import Any

from features import Result, try_each
from served import CALLING, PLAIN, TIMEOUT, Served

# Else it asks another server for a table of prices when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm

MESSAGES: Any = [{"role": "user", "content": "What is a mountain under the sea called?"}]
DEPTH: Any = {
    "type": "function",
    "function": {
        "name": "depth",
        "parameters": {
            "type": "object",
            "properties": {"sea": {"enum": ["north", "baltic"]}},
            "required": ["sea"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


def _ask(url: str, provider: str, model: str = PLAIN, **more: Any) -> Any:
    asked = {"messages": MESSAGES, "max_tokens": 24, "temperature": 0, "api_key": "none", **more}
    base = url if provider == "anthropic" else f"{url}/v1"
    return litellm.completion(f"{provider}/{model}", api_base=base, timeout=TIMEOUT, num_retries=0, **asked)


def _same_streamed(url: str, provider: str) -> None:
    whole = _ask(url, provider)
    pieces = [one.choices[0].delta.content or "" for one in _ask(url, provider, stream=True)]
    assert "".join(pieces) == whole.choices[0].message.content
    assert whole.usage.completion_tokens > 0


def openai(url: str) -> None:
    """As OpenAI's: whole and streamed, the same text."""
    _same_streamed(url, "openai")


def deepseek(url: str) -> None:
    """As DeepSeek's: whole and streamed, the same text."""
    _same_streamed(url, "deepseek")


def anthropic(url: str) -> None:
    """As Anthropic's: whole and streamed, the same text."""
    _same_streamed(url, "anthropic")


def tools(url: str) -> None:
    """A strict tool that is forced, as OpenAI's and as Anthropic's."""
    forced = {"type": "function", "function": {"name": "depth"}}
    asked = {"model": CALLING, "tools": [DEPTH], "tool_choice": forced, "max_tokens": 96, "parallel_tool_calls": False}
    calls = [_ask(url, provider, **asked).choices[0].message.tool_calls for provider in ("openai", "anthropic")]
    for (call,) in calls:
        assert call.function.name == "depth"
        assert set(json.loads(call.function.arguments)) == {"sea"}


def results(served: Served) -> list[Result]:
    """What LiteLLM finds."""
    return try_each("litellm", (openai, deepseek, anthropic, tools), served.url)
