"""Server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from seamount.server.failures import failure_of, is_anthropic

KEEP_ALIVE = ": still waiting\n\n"
"""A comment, which clients pass over."""
DONE = "data: [DONE]\n\n"


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def compact(value: Any) -> str:
    """A value as JSON without white space."""
    return _ENCODER.encode(value)


def event(data: Any, name: str | None = None) -> str:
    """One event; Anthropic's have names."""
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {compact(data)}\n\n"


class EventStream(Response):
    """Sends events as they are made, and closes what makes them, whatever happens."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str, None], headers: Mapping[str, str]) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no", **headers})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for text in self._events:
                # A name in a prompt's echo may hold lone surrogates, which UTF-8 cannot express.
                await send({"type": "http.response.body", "body": text.encode(errors="replace"), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError:  # the client hung up
            pass
        except Exception as error:  # noqa: BLE001 - a request's border: the status is long gone, so it goes in band
            name = "error" if is_anthropic(scope["path"]) else None
            text = event(failure_of(error).body(scope), name)
            await send({"type": "http.response.body", "body": text.encode(), "more_body": False})
        finally:
            await self._events.aclose()
