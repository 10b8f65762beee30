"""LangChain's client of OpenAI's API: whether what is built on it works."""

from __future__ import annotations

from typing import Literal

from features import Result, try_each
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from served import CALLING, PLAIN, TIMEOUT, Served


class Mountain(BaseModel):
    """A mountain under the sea."""

    kind: Literal["volcano", "ridge"]
    metres: Literal[1000, 2000, 3000]


@tool
def depth(sea: Literal["north", "baltic"]) -> str:
    """How deep a sea is."""
    return {"north": "95 m", "baltic": "55 m"}[sea]


def _model(url: str, name: str, most: int = 24) -> ChatOpenAI:
    # Without thinking, since that would take all of the few tokens.
    kept = {"chat_template_kwargs": {"enable_thinking": False}} if name == CALLING else None
    return ChatOpenAI(
        base_url=f"{url}/v1",
        api_key="none",
        model=name,
        temperature=0,
        max_tokens=most,
        max_retries=0,
        timeout=TIMEOUT,
        extra_body=kept,
    )


def chat(url: str) -> None:
    """Chat, with usage."""
    answer = _model(url, PLAIN).invoke("What is a seamount?")
    assert answer.content
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] > 0


def stream(url: str) -> None:
    """Chat, streamed: the same text."""
    model = _model(url, PLAIN)
    assert "".join(str(piece.content) for piece in model.stream("What is a seamount?")) == (
        model.invoke("What is a seamount?").content
    )


def batch(url: str) -> None:
    """Several chats at once."""
    assert len(_model(url, PLAIN).batch(["One", "Two", "Three"])) == 3


def tools(url: str) -> None:
    """A bound tool, its call and its result."""
    model = _model(url, CALLING, 96).bind_tools([depth], tool_choice="depth", strict=True, parallel_tool_calls=False)
    asked = HumanMessage("How deep is the Baltic?")
    answer = model.invoke([asked])
    assert isinstance(answer, AIMessage)
    (call,) = answer.tool_calls
    said = ToolMessage(depth.invoke(call["args"]), tool_call_id=call["id"])
    assert _model(url, CALLING).invoke([asked, answer, said]).content


def structured(url: str) -> None:
    """with_structured_output, by a schema and by a tool."""
    by_schema = _model(url, PLAIN, 96).with_structured_output(Mountain, method="json_schema")
    assert isinstance(by_schema.invoke("A seamount"), Mountain)
    by_tool = _model(url, CALLING, 96).with_structured_output(Mountain, method="function_calling", strict=True)
    assert isinstance(by_tool.invoke("A seamount"), Mountain)


def results(served: Served) -> list[Result]:
    """What LangChain finds."""
    return try_each("langchain-openai", (chat, stream, batch, tools, structured), served.url)
