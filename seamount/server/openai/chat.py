"""/chat/completions: a chat's tokens, and its answers whole and in pieces."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Iterable
from typing import Any

from pydantic import BaseModel

from seamount.server.asking import Ask, ServedModel
from seamount.server.bodies import RefusedField
from seamount.server.chats import Chat, ask_of
from seamount.server.events import DONE, KEEP_ALIVE, compact, event
from seamount.server.exchange import Delta, Exchange
from seamount.server.formats import Arguments, Content, Piece, Reasoning, ToolCall
from seamount.server.openai.bodies import ChatBody
from seamount.server.openai.logprobs import chat_logprobs
from seamount.tokenizer import Tokenizer


def chat_of(body: ChatBody) -> Chat:
    """What a body asks for, in no dialect's words.

    Errors: RefusedField.
    """
    body.check()
    messages = [message.for_template() for message in body.messages]
    prefix: dict[str, Any] = {}
    if body.messages[-1].prefix:
        prefix = messages.pop()
        if not messages:
            raise RefusedField("messages: a prefix needs a message in front of it", "messages")
    return Chat(
        messages=messages,
        prefix=prefix.get("content"),
        prefix_reasoning=prefix.get("reasoning_content"),
        tools=[tool.model_dump(exclude_none=True) for tool in body.tools or ()],
        tool_choice=_plain(body.tool_choice),
        parallel_tool_calls=body.parallel_tool_calls is not False,
        response_format=_plain(body.response_format),
        thinking=None if body.thinking is None else body.thinking.type == "enabled",
        effort=body.reasoning_effort,
        variables=body.chat_template_kwargs or {},
    )


def _plain(value: Any) -> Any:
    return value.model_dump(exclude_none=True, by_alias=True) if isinstance(value, BaseModel) else value


def chat_ask(body: ChatBody, model: ServedModel, route: str) -> Ask:
    """The prompt, and how its answers are drawn and read. Takes milliseconds: call it in a thread.

    Errors: RequestError, TokenizerError.
    """
    return ask_of(chat_of(body), model, route, body.params)


class ChatAnswer:
    """Writes the answers to one chat."""

    def __init__(self, exchange: Exchange, body: ChatBody, model: ServedModel, num_choices: int) -> None:
        self._exchange, self._body = exchange, body
        self._tokenizer: Tokenizer = model.backend.tokenizer
        self._num_choices = num_choices
        self._head = {"id": f"chatcmpl-{secrets.token_hex(16)}", "created": int(time.time()), "model": model.name}
        self._usage = ',"usage":null' if body.includes_usage else ""
        head = {**self._head, "object": "chat.completion.chunk"}
        self._event_head = f"data: {compact(head)[:-1]},"

    async def whole(self) -> dict[str, Any]:
        """All answers in one object."""
        answers = [_Message() for _ in range(self._num_choices)]
        async for deltas in self._exchange.deltas():
            for delta in deltas:
                answers[delta.choice].take(delta)
        choices = [
            {
                "index": index,
                "message": answer.message(),
                "logprobs": chat_logprobs(self._tokenizer, answer.scored) if self._body.logprobs else None,
                "finish_reason": answer.finish_reason,
            }
            for index, answer in enumerate(answers)
        ]
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": self._exchange.usage()}

    async def events(self) -> AsyncGenerator[str, None]:
        """The answers as they are made."""
        deltas = self._exchange.deltas()
        try:
            yield "".join(
                self._event(index, {"role": "assistant", "content": ""}) for index in range(self._num_choices)
            )
            async for group in deltas:
                text = "".join(self._events_of(delta) for delta in group)
                if text or not group:
                    yield text or KEEP_ALIVE
            if self._body.includes_usage:
                counted = {"object": "chat.completion.chunk", "choices": [], "usage": self._exchange.usage()}
                yield event({**self._head, **counted})
            yield DONE
        finally:
            await deltas.aclose()

    def _events_of(self, delta: Delta) -> str:
        logprobs = None
        if self._body.logprobs:
            logprobs = chat_logprobs(self._tokenizer, [one.logprob for one in delta.chunks if one.logprob])
        contents = [_delta_of(piece) for piece in _joined(delta.pieces)]
        events = []
        if not contents and logprobs is not None:
            contents = [{}]
        for content in contents:
            events.append(self._event(delta.choice, content, None, logprobs))
            logprobs = None
        if delta.finish_reason is not None:
            events.append(self._event(delta.choice, {}, delta.finish_reason))
        return "".join(events)

    def _event(
        self, index: int, content: dict[str, Any], finish_reason: str | None = None, logprobs: Any = None
    ) -> str:
        choice = {"index": index, "delta": content, "logprobs": logprobs, "finish_reason": finish_reason}
        return f'{self._event_head}"choices":[{compact(choice)}]{self._usage}}}\n\n'


class _Message:
    """One whole answer in the making."""

    def __init__(self) -> None:
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self.scored: list[Any] = []
        self.finish_reason: str | None = None

    def take(self, delta: Delta) -> None:
        """Add what arrived."""
        for piece in delta.pieces:
            if isinstance(piece, Content):
                self._content.append(piece.text)
            elif isinstance(piece, Reasoning):
                self._reasoning.append(piece.text)
            elif isinstance(piece, ToolCall):
                self._calls.append(new_call(piece))
            else:
                self._calls[piece.index]["function"]["arguments"] += piece.text
        self.scored += [chunk.logprob for chunk in delta.chunks if chunk.logprob is not None]
        self.finish_reason = delta.finish_reason or self.finish_reason

    def message(self) -> dict[str, Any]:
        """As clients get it; the reasoning under both of its names."""
        content = "".join(self._content)
        content_or_none = None if self._calls and not content else content
        # What OpenAI's messages have besides: a refusal by its own policy, and what its search on the web found.
        others: dict[str, Any] = {"refusal": None, "annotations": []}
        message: dict[str, Any] = {"role": "assistant", "content": content_or_none, **others}
        if self._reasoning:
            message["reasoning_content"] = message["reasoning"] = "".join(self._reasoning)
        if self._calls:
            message["tool_calls"] = [{key: call[key] for key in ("id", "type", "function")} for call in self._calls]
        return message


def new_call(piece: ToolCall) -> dict[str, Any]:
    """A call that has no arguments yet."""
    function = {"name": piece.name, "arguments": ""}
    return {"index": piece.index, "id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


def _delta_of(piece: Piece) -> dict[str, Any]:
    if isinstance(piece, Content):
        return {"content": piece.text}
    if isinstance(piece, Reasoning):
        return {"reasoning_content": piece.text, "reasoning": piece.text}
    if isinstance(piece, ToolCall):
        return {"tool_calls": [new_call(piece)]}
    return {"tool_calls": [{"index": piece.index, "function": {"arguments": piece.text}}]}


def _joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Neighbours of one kind as one."""
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if isinstance(piece, Content) and isinstance(last, Content):
            joined[-1] = Content(last.text + piece.text)
        elif isinstance(piece, Reasoning) and isinstance(last, Reasoning):
            joined[-1] = Reasoning(last.text + piece.text)
        elif isinstance(piece, Arguments) and isinstance(last, Arguments) and piece.index == last.index:
            joined[-1] = Arguments(last.index, last.text + piece.text)
        else:
            joined.append(piece)
    return joined
