"""What a key's limits leave, as the headers of either dialect tell it.

Source: the pages on rate limits in OpenAI's and in Anthropic's documentation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal


@dataclass(frozen=True)
class Standing:
    """How one limit of a key stands.

    Units: `reset` in seconds until all of it is there again.
    """

    kind: Literal["requests", "tokens"]
    limit: int
    remaining: int
    reset: float


HeaderWriter = Callable[[Sequence[Standing], float], dict[str, str]]
"""Standings, and the seconds since 1970 at which they stand so, as headers."""


def openai_headers(standings: Sequence[Standing], now: float) -> dict[str, str]:
    """x-ratelimit-limit-requests and so on; what is there again when is told as a duration."""
    headers = {}
    for one in standings:
        headers[f"x-ratelimit-limit-{one.kind}"] = str(one.limit)
        headers[f"x-ratelimit-remaining-{one.kind}"] = str(one.remaining)
        headers[f"x-ratelimit-reset-{one.kind}"] = duration(one.reset)
    return headers


def anthropic_headers(standings: Sequence[Standing], now: float) -> dict[str, str]:
    """anthropic-ratelimit-requests-limit and so on; what is there again when is told as a time of RFC 3339."""
    headers = {}
    for one in standings:
        # Whole seconds, as theirs; whoever comes then must not be too early.
        reset = datetime.fromtimestamp(math.ceil(now + one.reset), UTC)
        headers[f"anthropic-ratelimit-{one.kind}-limit"] = str(one.limit)
        headers[f"anthropic-ratelimit-{one.kind}-remaining"] = str(one.remaining)
        headers[f"anthropic-ratelimit-{one.kind}-reset"] = reset.strftime("%Y-%m-%dT%H:%M:%SZ")
    return headers


def duration(seconds: float) -> str:
    """A time as OpenAI's headers have it: 12ms, 1.5s, 6m0s. Rounded up to milliseconds."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes}m{rest / 1000:g}s" if minutes else f"{rest / 1000:g}s"
