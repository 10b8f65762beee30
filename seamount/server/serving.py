"""Listening, and leaving cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import shlex
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn

from seamount.device import process_age_seconds
from seamount.engine import Engine
from seamount.errors import ConfigError
from seamount.server.app import create_app

GRACE_SECONDS = 2
"""How long answers under way may take to end once the server is told to stop."""


def serve(
    engine: Engine,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    model_name: str,
    allow_remote: bool = False,
    show: Callable[[str], None] = print,
) -> None:
    """Answers HTTP requests until Ctrl-C or SIGTERM; port 0 takes a free one.

    Once it listens, `show` gets the lines that say where and how to ask.
    Errors: ConfigError if the address is taken, or if others could reach it and `allow_remote` is not set.
    """
    with open_socket(host, port, allow_remote=allow_remote) as listener:
        app = create_app(engine, model_name)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=GRACE_SECONDS + 2)
        url = _url(listener)
        lines = [
            f"Seamount serves {model_name} at {url}",
            f"listening {process_age_seconds():.1f} s after the process started; Ctrl-C stops it",
            curl_line(url, model_name, engine.tokenizer.has_chat_template),
        ]
        _Server(config, engine, lambda: show("\n".join(lines))).run(sockets=[listener])


def open_socket(host: str, port: int, *, allow_remote: bool = False) -> socket.socket:
    """A socket bound to the address.

    Errors: as for serve.
    """
    if not allow_remote and not _is_loopback(host):
        raise ConfigError(
            f"host = {host!r}: others could reach it, and this server asks for no key; allowed are 127.0.0.1, ::1 and "
            "localhost, or any host once remote access is allowed explicitly"
        )
    if not 0 <= port <= 65535:
        raise ConfigError(f"port = {port}; allowed is 0 (any free one) to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"host = {host!r} cannot be used: {error.strerror or error}") from None
    try:
        # A port that a stopped server used a moment ago is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"port = {port} of {host} cannot be used: {error.strerror or error}; "
            "stop the program that has it, or choose another port (0 takes any free one)"
        ) from None
    return listener


def curl_line(url: str, model_name: str, has_chat_template: bool) -> str:
    """A shell command that asks the server something."""
    question: dict[str, object]
    if has_chat_template:
        path, question = "chat/completions", {"messages": [{"role": "user", "content": "What is a seamount?"}]}
    else:
        path, question = "completions", {"prompt": "A seamount is", "max_tokens": 64}
    body = json.dumps({"model": model_name, **question})
    return f"curl {url}/v1/{path} -H 'Content-Type: application/json' -d {shlex.quote(body)}"


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, engine: Engine, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._engine = engine
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Ended by the engine, streams tell their clients why; uvicorn would break them off a little later.
        asyncio.get_running_loop().call_later(GRACE_SECONDS, self._engine.stop)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Uvicorn raises the signals again after it has shut down, and so a clean end would look like a crash.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        kinds = (signal.SIGINT, signal.SIGTERM)
        before = {kind: signal.signal(kind, self.handle_exit) for kind in kinds}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    # An address that stands for all of this machine's is no address to connect to everywhere.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
