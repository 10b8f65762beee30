"""Listening, and leaving cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import math
import shlex
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import uvicorn

from seamount.device import process_age_seconds
from seamount.errors import ConfigError
from seamount.server.app import create_app
from seamount.server.backend import LocalBackend
from seamount.server.requests_log import JsonLines
from seamount.server.service import Service

_LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]", "::1")
DRAIN_SECONDS = 30.0
"""How long answers under way may take to end after SIGTERM."""
INTERRUPT_SECONDS = 2.0
"""The same after Ctrl-C, behind which somebody waits."""
_ENDING_SECONDS = 20
"""What follows for a client to be told why its answer ends: the step that runs goes on, seconds in a large model."""


def serve(
    service: Service,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    allow_remote: bool = False,
    without_keys: bool = False,
    cors_origins: Sequence[str] = (),
    drain_seconds: float = DRAIN_SECONDS,
    show: Callable[[str], None] = print,
) -> None:
    """Answers HTTP requests until Ctrl-C or SIGTERM; port 0 takes a free one.

    Once it listens, `show` gets the lines that say where and how to ask. Told to stop, it takes no more requests, and
    answers under way may end within `drain_seconds`, after Ctrl-C within two; those that do not are ended, and their
    clients told so. Told again, it leaves at once.

    Errors: ConfigError if the address is taken, or if others could reach it without a key and that is not allowed.
    """
    is_local = is_loopback(host)
    if not is_local and not service.keys.are_configured() and not (allow_remote and without_keys):
        raise ConfigError(
            f"host = {host!r}: others could reach it, and this server asks for no key; make one (seamount keys add), "
            "or listen on 127.0.0.1, or allow remote access without keys by both options, --allow-remote and "
            "--without-keys"
        )
    with open_socket(host, port) as listener:
        _log_as_json()
        # A web page whose name somebody points at this machine is no visitor of it.
        app = create_app(service, cors_origins, hosts=_LOCAL_NAMES if is_local else ())
        config = uvicorn.Config(app, log_level="warning", access_log=False)
        url = _url(listener)
        model = service.model(None)
        lines = [
            f"Seamount serves {', '.join(service.models)} at {url}",
            f"listening {process_age_seconds():.1f} s after the process started; Ctrl-C stops it",
            curl_line(url, model.name, model.backend.tokenizer.has_chat_template),
            f"a chat at {url}/, the ledger at {url}/ledger and in {service.ledger.path}",
        ]
        _Server(config, service, drain_seconds, lambda: show("\n".join(lines))).run(sockets=[listener])


def open_socket(host: str, port: int) -> socket.socket:
    """A socket bound to the address.

    Errors: as for serve.
    """
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
    def __init__(
        self, config: uvicorn.Config, service: Service, drain_seconds: float, on_listening: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._service, self._drain_seconds = service, drain_seconds
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_listening()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called for a signal."""
        if sig == signal.SIGINT:
            self._drain_seconds = min(self._drain_seconds, INTERRUPT_SECONDS)
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Ended by their engine, streams tell their clients why; uvicorn breaks off those that nobody reads.
        self._service.is_draining = True
        self.config.timeout_graceful_shutdown = math.ceil(self._drain_seconds) + _ENDING_SECONDS
        asyncio.get_running_loop().call_later(self._drain_seconds, self._end_answers)
        await super().shutdown(sockets)

    def _end_answers(self) -> None:
        for model in self._service.models.values():
            if isinstance(model.backend, LocalBackend):
                model.backend.engine.stop()

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


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own, for itself alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    # An address that stands for all of this machine's is no address to connect to everywhere.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _log_as_json() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    for name in ("seamount", "uvicorn.error"):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [handler], False
    logging.getLogger("seamount.requests").setLevel(logging.INFO)
