"""/v1/messages: a chat's next message, whole and as events."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from seamount.server.anthropic.blocks import Blocks, Event
from seamount.server.anthropic.bodies import MessagesBody
from seamount.server.anthropic.prompts import chat_of
from seamount.server.asking import Ask, ServedModel
from seamount.server.chats import ask_of
from seamount.server.events import event
from seamount.server.exchange import Delta, Exchange
from seamount.server.limits import KEEP_ALIVE_SECONDS

_PING = event({"type": "ping"}, "ping")
# What Anthropic's schema demands of a message and of its counts, and what nothing here ever gives a value.
_NOTHING = {"stop_details": None, "container": None}
_NOT_COUNTED = {"cache_creation": None, "inference_geo": None, "server_tool_use": None}
_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def messages_ask(body: MessagesBody, model: ServedModel) -> Ask:
    """The prompt, and how its answer is drawn and read. Takes milliseconds: call it in a thread.

    Errors: RequestError, TokenizerError.
    """
    return ask_of(chat_of(body, model), model, "messages", body.params)


class MessageAnswer:
    """Writes the answer to one chat."""

    def __init__(self, exchange: Exchange, body: MessagesBody, model: ServedModel) -> None:
        self._exchange, self._model_name = exchange, model.name
        eager = {tool.name for tool in body.tools or () if tool.eager_input_streaming}
        shows_thinking = body.thinking is None or body.thinking.display != "omitted"
        self._blocks = Blocks(eager, shows_thinking=shows_thinking)
        self._id = f"msg_{secrets.token_hex(12)}"
        self._end: dict[str, str | None] = {"stop_reason": None, "stop_sequence": None}
        self._has_begun = False

    async def whole(self) -> dict[str, Any]:
        """The answer in one object."""
        async for deltas in self._exchange.deltas():
            for delta in deltas:
                for _ in self._events_of(delta):
                    pass
        return self._message()

    async def events(self) -> AsyncGenerator[str, None]:
        """The answer as it is made. It begins with the first token: what the cache held is not known before."""
        deltas = self._exchange.deltas()
        spoken_at = time.monotonic()
        try:
            async for group in deltas:
                text = "".join(event(one, one["type"]) for delta in group for one in self._events_of(delta))
                # Also silent is a stream that makes a tool's input, which is told once it is whole.
                if text or not group or time.monotonic() > spoken_at + KEEP_ALIVE_SECONDS:
                    spoken_at = time.monotonic()
                    yield text or _PING
        finally:
            await deltas.aclose()

    def _events_of(self, delta: Delta) -> Iterator[Event]:
        if not self._has_begun:
            self._has_begun = True
            yield {"type": "message_start", "message": self._message()}
        for piece in delta.pieces:
            yield from self._blocks.take(piece)
        if delta.finish_reason is not None:
            yield from self._blocks.close()
            stop = delta.chunks[-1].stop_string
            # What a stop sequence cut off is no call to be run.
            reason = _REASONS[delta.finish_reason] if stop is None else "stop_sequence"
            self._end = {"stop_reason": reason, "stop_sequence": stop}
            yield {"type": "message_delta", "delta": self._end, "usage": self._usage()}
            yield {"type": "message_stop"}

    def _message(self) -> dict[str, Any]:
        """As far as it is known."""
        head = {"id": self._id, "type": "message", "role": "assistant", "model": self._model_name}
        return {**head, "content": self._blocks.done, **self._end, **_NOTHING, "usage": self._usage()}

    def _usage(self) -> dict[str, Any]:
        """The counts so far; Anthropic's input_tokens are those that no cache held."""
        tally = self._exchange.tally
        return {
            "input_tokens": tally.prompt_tokens - tally.hit_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": tally.hit_tokens,
            "output_tokens": tally.output_tokens,
            "output_tokens_details": {"thinking_tokens": tally.reasoning_tokens},
            "service_tier": "standard",
            **_NOT_COUNTED,
            "seamount": self._exchange.usage()["seamount"],
        }
