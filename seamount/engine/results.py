"""What the engine gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]
"""stop: the model ended its answer or a stop string came; length: max_tokens or the context was reached."""


@dataclass(frozen=True)
class Chunk:
    """One token of an answer."""

    text: str
    """What can be shown since the chunk before: possibly nothing, never half a character or part of a stop string."""
    token_id: int
    finish_reason: FinishReason | None
    """Set in the last chunk alone."""


@dataclass(frozen=True)
class Timing:
    """How long an answer took, waiting for other requests included.

    Units: seconds since the engine turned to this prompt; those before it in the same list do not count.
    """

    first_token_seconds: float
    total_seconds: float


@dataclass(frozen=True)
class Completion:
    """One whole answer."""

    text: str
    token_ids: tuple[int, ...]
    """All that were drawn, also the one that ended the answer and is not in the text."""
    finish_reason: FinishReason
    prompt_tokens: int
    timing: Timing
