"""OpenAI's HTTP API over one model."""

from seamount.server.app import create_app
from seamount.server.serving import open_socket, serve

__all__ = ["create_app", "open_socket", "serve"]
