"""Errors in OpenAI's form."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from seamount.errors import ContextOverflow, QueueFull, RequestError, SeamountError, TokenizerError
from seamount.server.requests import RefusedField

_log = logging.getLogger("seamount.server")


class Failure(SeamountError):
    """An answer other than 200."""

    def __init__(self, message: str, status: int = 500, field: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.field = field
        self.code = code

    def body(self) -> dict[str, Any]:
        """The JSON that clients of OpenAI's API understand."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        # A name that a client sent may hold lone surrogates, which cannot be sent back.
        message = str(self).encode("utf-8", errors="replace").decode()
        return {"error": {"message": message, "type": kind, "param": self.field, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.body(), status_code=self.status)


def failure_of(error: Exception) -> Failure:
    """What a client may know of an error; what it may not goes to the log."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, RefusedField):
        return Failure(str(error), 400, field=error.field)
    if isinstance(error, ContextOverflow):
        return Failure(str(error), 400, field="max_tokens", code="context_length_exceeded")
    if isinstance(error, QueueFull):
        return Failure(str(error), 429, code="queue_full")
    if isinstance(error, (RequestError, TokenizerError)):
        return Failure(str(error), 400)
    _log.error("a request failed", exc_info=error)
    return Failure("the server failed on this request; its log says why")


def install_handlers(app: FastAPI) -> None:
    """Makes every error of an app answer in the one form."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, HTTPException):
            error = Failure(f"{request.method} {request.url.path}: {error.detail}", error.status_code)
        return failure_of(error).response()

    for kind in (SeamountError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)
