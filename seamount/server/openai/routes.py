"""The paths of OpenAI's API."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from seamount.server.asking import ServedModel
from seamount.server.events import EventStream
from seamount.server.exchange import Exchange
from seamount.server.failures import Failure
from seamount.server.openai.bodies import ChatBody, CompletionBody
from seamount.server.openai.chat import ChatAnswer, chat_ask
from seamount.server.openai.completions import CompletionAnswer, completion_ask
from seamount.server.schema import described
from seamount.server.service import Service


def openai_router(service: Service) -> APIRouter:
    """Chat, completions and models over a service."""
    router = APIRouter()

    @router.post("/chat/completions", **described("The next message of a chat", ChatBody, streams=True))
    async def chat_completions(http: Request) -> Response:
        service.key_of(http)
        body = await ChatBody.read(http)
        model = _model(service, body.model)
        ask = await asyncio.to_thread(chat_ask, body, model, "chat")
        exchange = await Exchange.begin(service, ask, http)
        answer = ChatAnswer(exchange, body, model, ask.num_choices)
        return await _respond(answer, exchange, body.stream)

    @router.post("/completions", **described("Texts that go on", CompletionBody, streams=True))
    async def completions(http: Request) -> Response:
        service.key_of(http)
        body = await CompletionBody.read(http)
        ask = await asyncio.to_thread(completion_ask, body, _model(service, body.model), "completions")
        exchange = await Exchange.begin(service, ask, http)
        return await _respond(CompletionAnswer(exchange, body, ask), exchange, body.stream)

    @router.get("/models", **described("The models that are served"))
    async def models(http: Request) -> dict[str, Any]:
        service.key_of(http)
        return {"object": "list", "data": [model.card() for model in service.models.values()]}

    # Names of models may hold slashes.
    @router.get("/models/{model_id:path}", **described("One model", missing="no model of this name"))
    async def one_model(http: Request, model_id: str) -> dict[str, Any]:
        service.key_of(http)
        return service.model(model_id).card()

    return router


def _model(service: Service, name: str | None) -> ServedModel:
    """The model of a name; none need be named where only one is served.

    Errors: Failure.
    """
    if name is None and len(service.models) > 1:
        allowed = " or ".join(map(repr, service.models))
        raise Failure(f"model: needed, since several are served; allowed is {allowed}", 400, field="model")
    return service.model(name)


async def _respond(answer: ChatAnswer | CompletionAnswer, exchange: Exchange, is_stream: bool | None) -> Response:
    if is_stream:
        return EventStream(answer.events(), exchange.headers)
    return JSONResponse(await answer.whole(), headers=exchange.headers)
