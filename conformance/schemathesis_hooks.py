"""Lets what schemathesis makes up reach the model, and keeps it short.

Whether a field is understood needs no thousand tokens of an answer; and what asks for no token, or of no model, is
refused whatever else it says.
"""

from __future__ import annotations

from typing import Any

import schemathesis

_MOST = {"max_tokens": 4, "max_completion_tokens": 4, "min_tokens": 2, "n": 2}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Changes numbers that ask for much or for nothing; what is of another kind stays, since that is tried."""
    body = case.body
    if not isinstance(body, dict):
        return
    for name, most in _MOST.items():
        if isinstance(body.get(name), int) and body[name] > most:
            body[name] = most
    if body.get("max_tokens") == 0 and not body.get("echo"):
        body["max_tokens"] = 1
    if body.get("prompt") == "":
        body["prompt"] = "x"
    if "messages" in body or "prompt" in body:
        body.setdefault("max_tokens", 4)
    # A made-up name is known to be answered by 404, and none by 400 where several models are served.
    if isinstance(body.get("model"), str | None):
        body["model"] = "embedded"
