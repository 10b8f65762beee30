"""The HTTP API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.requests import ClientDisconnect

from seamount.engine import Engine
from seamount.server.answers import AnswerForm, ChatForm, CompletionForm, event, usage
from seamount.server.body_limit import BodyLimit
from seamount.server.bridge import Answer, running
from seamount.server.failures import Failure, failure_of, install_handlers
from seamount.server.requests import ChatBody, CompletionBody

# nginx's number for a client that hung up before its answer; nobody reads it.
_CLIENT_GONE = 499


def create_app(engine: Engine, model_name: str) -> FastAPI:
    """The app that answers with one engine, under /v1 and without it."""
    api = _Api(engine, model_name)
    router = APIRouter()
    router.add_api_route("/chat/completions", api.chat_completions, methods=["POST"], response_model=None)
    router.add_api_route("/completions", api.completions, methods=["POST"], response_model=None)
    router.add_api_route("/models", api.models, methods=["GET"])
    # Names of models may hold slashes.
    router.add_api_route("/models/{model_id:path}", api.one_model, methods=["GET"])
    router.add_api_route("/health", api.health, methods=["GET"])
    # No generated pages: they load their scripts from other servers.
    app = FastAPI(
        title="Seamount", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lambda app: running(engine)
    )
    app.include_router(router)
    app.include_router(router, prefix="/v1")
    app.add_api_route("/", api.index, methods=["GET"])
    app.add_middleware(BodyLimit)
    install_handlers(app)
    return app


class _Api:
    def __init__(self, engine: Engine, model_name: str) -> None:
        self._engine = engine
        self._model_name = model_name
        self._created = int(time.time())

    async def chat_completions(self, request: Request) -> Response:
        body = ChatBody.parse(await _json_body(request))
        self._require_model(body.model)
        messages = [message.for_template() for message in body.messages]
        prompt = await asyncio.to_thread(self._engine.tokenizer.chat, messages)
        answer = await Answer.of(self._engine, prompt, body.params())
        form = ChatForm(self._model_name, body.includes_usage)
        return await _respond(answer, request, form, len(prompt), body.stream)

    async def completions(self, request: Request) -> Response:
        body = CompletionBody.parse(await _json_body(request))
        self._require_model(body.model)
        encode: Callable[[str], list[int]] = self._engine.tokenizer.encode
        prompt = await asyncio.to_thread(encode, body.prompt) if isinstance(body.prompt, str) else body.prompt
        answer = await Answer.of(self._engine, prompt, body.params())
        form = CompletionForm(self._model_name, body.includes_usage)
        return await _respond(answer, request, form, len(prompt), body.stream)

    async def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [self._card()]}

    async def one_model(self, model_id: str) -> dict[str, Any]:
        self._require_model(model_id)
        return self._card()

    async def health(self) -> dict[str, str]:
        return {"status": "ok"}

    async def index(self) -> dict[str, Any]:
        return {"server": "seamount", "model": self._model_name, "api": "/v1"}

    def _card(self) -> dict[str, Any]:
        return {"id": self._model_name, "object": "model", "created": self._created, "owned_by": "seamount"}

    def _require_model(self, name: str | None) -> None:
        if name is not None and name != self._model_name:
            message = f"model = {name[:200]!r} is not served here; allowed is {self._model_name!r}"
            raise Failure(message, 404, field="model", code="model_not_found")


def _stopped() -> Failure:
    # Or the client has hung up, and then nobody reads it.
    return Failure("the server is stopping and has ended this answer", 503)


async def _json_body(request: Request) -> bytes:
    # A web page can send other types to this address without its browser asking us first.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Failure(f"content-type = {kind[:80]!r}; allowed is 'application/json'", 415)
    try:
        return await request.body()
    except ClientDisconnect:
        raise Failure("the client hung up within its request", _CLIENT_GONE) from None


async def _respond(answer: Answer, request: Request, form: AnswerForm, prompt_tokens: int, is_stream: bool) -> Response:
    if is_stream:
        events = _events(answer, request, form, prompt_tokens)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
    text, count, finish_reason = [], 0, None
    try:
        async for chunk in answer.chunks(request):
            text.append(chunk.text)
            count += 1
            finish_reason = chunk.finish_reason
    except Exception as error:  # noqa: BLE001 - a request's border: beyond it, the connection would be closed
        raise failure_of(error) from None
    if finish_reason is None:
        raise _stopped()
    return JSONResponse(form.whole("".join(text), finish_reason, usage(prompt_tokens, count)))


async def _events(answer: Answer, request: Request, form: AnswerForm, prompt_tokens: int) -> AsyncIterator[str]:
    chunks = answer.chunks(request)
    count = 0
    try:
        for line in form.first():
            yield line
        async for chunk in chunks:
            count += 1
            if chunk.text:
                yield form.piece(chunk.text)
            if chunk.finish_reason is not None:
                yield form.piece("", chunk.finish_reason)
                for line in form.last(usage(prompt_tokens, count)):
                    yield line
                return
        yield event(_stopped().body())
    except Exception as error:  # noqa: BLE001 - a request's border: the status line is long gone, so it goes in band
        yield event(failure_of(error).body())
    finally:
        await chunks.aclose()
