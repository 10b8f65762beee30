"""What clients get, in OpenAI's words."""

from __future__ import annotations

import json
import time
import uuid
from abc import ABC, abstractmethod
from typing import Any


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """The token counts of a request."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def event(data: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


END_OF_STREAM = "data: [DONE]\n\n"


class AnswerForm(ABC):
    """How one kind of answer is written: whole, and in pieces."""

    prefix: str
    whole_object: str
    piece_object: str

    def __init__(self, model_name: str, includes_usage: bool) -> None:
        self._head = {
            "id": f"{self.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model_name,
        }
        self._includes_usage = includes_usage

    @abstractmethod
    def _whole_choice(self, text: str) -> dict[str, Any]: ...

    @abstractmethod
    def _piece_choice(self, text: str) -> dict[str, Any]: ...

    def whole(self, text: str, finish_reason: str | None, counts: dict[str, int]) -> dict[str, Any]:
        """The answer in one object."""
        choice = {"index": 0, **self._whole_choice(text), "logprobs": None, "finish_reason": finish_reason}
        return {**self._head, "object": self.whole_object, "choices": [choice], "usage": counts}

    def first(self) -> list[str]:
        """The events in front of the text."""
        return []

    def piece(self, text: str, finish_reason: str | None = None) -> str:
        """The event for some more text, or for the end."""
        return self._event(self._piece_choice(text), finish_reason)

    def last(self, counts: dict[str, int]) -> list[str]:
        """The events after the end."""
        if not self._includes_usage:
            return [END_OF_STREAM]
        counted = event({**self._head, "object": self.piece_object, "choices": [], "usage": counts})
        return [counted, END_OF_STREAM]

    def _event(self, content: dict[str, Any], finish_reason: str | None) -> str:
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": finish_reason}
        # Clients that asked for usage find the key in each event.
        counts = {"usage": None} if self._includes_usage else {}
        return event({**self._head, "object": self.piece_object, "choices": [choice], **counts})


class ChatForm(AnswerForm):
    """Answers of /chat/completions."""

    prefix = "chatcmpl"
    whole_object = "chat.completion"
    piece_object = "chat.completion.chunk"

    def _whole_choice(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}}

    def _piece_choice(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}

    def first(self) -> list[str]:
        """The role comes alone."""
        return [self._event({"delta": {"role": "assistant", "content": ""}}, None)]


class CompletionForm(AnswerForm):
    """Answers of /completions."""

    prefix = "cmpl"
    whole_object = "text_completion"
    piece_object = "text_completion"

    def _whole_choice(self, text: str) -> dict[str, Any]:
        return {"text": text}

    _piece_choice = _whole_choice
