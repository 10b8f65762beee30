"""An answer's pieces as Anthropic's content blocks, and the events that build them."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection, Iterator
from typing import Any

from pydantic_core import from_json

from seamount.server.formats import Content as Text
from seamount.server.formats import Piece, Reasoning, ToolCall

Event = dict[str, Any]

INVALID_JSON = "INVALID_JSON"
"""The only member of an input that stands for arguments which are no JSON object: their text is its value.

Anthropic's guide to eager input streaming suggests the name for telling a model of them."""


class Blocks:
    """The blocks of one answer, as its pieces come."""

    def __init__(self, eager_tools: Collection[str] = (), *, shows_thinking: bool = True) -> None:
        """`eager_tools`: names of those whose input's text is told before it is whole, and found to be JSON."""
        self.done: list[dict[str, Any]] = []
        """Those that are whole."""
        self._eager_tools, self._shows_thinking = eager_tools, shows_thinking
        self._block: dict[str, Any] | None = None
        self._parts: list[str] = []

    def take(self, piece: Piece) -> Iterator[Event]:
        """The events that one more piece brings."""
        if isinstance(piece, ToolCall):
            head = {"type": "tool_use", "id": f"toolu_{secrets.token_hex(12)}", "name": piece.name}
            yield from self._begin({**head, "input": {}, "caller": {"type": "direct"}})
            return
        if isinstance(piece, Text) and self._kind != "text":
            yield from self._begin({"type": "text", "text": "", "citations": None})
        elif isinstance(piece, Reasoning) and self._kind != "thinking":
            yield from self._begin({"type": "thinking", "thinking": "", "signature": ""})
        assert self._block is not None, "arguments of no call"
        self._parts.append(piece.text)
        if self._is_told_at_once:
            yield self._delta(piece.text)

    def close(self) -> Iterator[Event]:
        """Nothing more belongs to the block that is open, if one is."""
        if self._block is None:
            return
        text = "".join(self._parts)
        if self._kind == "text":
            self._block["text"] = text
        elif self._kind == "thinking":
            self._block["thinking"] = text if self._shows_thinking else ""
            # Clients insist on one, and give it back. Nobody reads it here.
            self._block["signature"] = signature = hashlib.sha256(text.encode()).hexdigest()
            yield self._event("content_block_delta", delta={"type": "signature_delta", "signature": signature})
        else:
            self._block["input"] = found = input_of(text)
            if not self._is_told_at_once:
                yield self._delta(json.dumps(found, ensure_ascii=False))
        yield self._event("content_block_stop")
        self.done.append(self._block)
        self._block, self._parts = None, []

    @property
    def _kind(self) -> str | None:
        return None if self._block is None else self._block["type"]

    @property
    def _is_told_at_once(self) -> bool:
        assert self._block is not None
        if self._kind == "tool_use":
            return self._block["name"] in self._eager_tools
        return self._kind == "text" or self._shows_thinking

    def _begin(self, block: dict[str, Any]) -> Iterator[Event]:
        yield from self.close()
        self._block = block
        yield self._event("content_block_start", content_block=dict(block))

    def _delta(self, text: str) -> Event:
        kind, name = {
            "text": ("text_delta", "text"),
            "thinking": ("thinking_delta", "thinking"),
            "tool_use": ("input_json_delta", "partial_json"),
        }[self._kind or ""]
        return self._event("content_block_delta", delta={"type": kind, name: text})

    def _event(self, kind: str, **more: Any) -> Event:
        return {"type": kind, "index": len(self.done), **more}


def input_of(text: str) -> dict[str, Any]:
    """A call's arguments as an object, whatever the model wrote."""
    try:
        found = from_json(text.strip() or "{}", allow_inf_nan=False)
        # Numbers beyond a float's range are read as infinity, which JSON has not.
        json.dumps(found, allow_nan=False)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {INVALID_JSON: text}
