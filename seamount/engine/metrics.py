"""What an engine did, and what it is doing."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

_STEPS_KEPT = 1024


@dataclass
class Metrics:
    """Counters since the engine was made, and gauges of its last step. Read from any thread.

    Units: tokens, pages, seconds.
    """

    requests: int = 0
    finished: int = 0
    aborted: int = 0
    failed: int = 0
    refused: int = 0
    preemptions: int = 0
    steps: int = 0
    prompt_tokens: int = 0
    """Tokens of admitted prompts, those found in the cache included."""
    computed_tokens: int = 0
    """Tokens that went through the model: prompts, answers, drafts, and rows computed again after a preemption."""
    generated_tokens: int = 0
    hit_tokens: int = 0
    """Tokens whose rows were found in memory or on disk."""
    disk_hit_tokens: int = 0
    evictions: int = 0
    drafted: list[int] = field(default_factory=list)
    """Drafts made, by their place behind the last token."""
    accepted: list[int] = field(default_factory=list)
    """Drafts that were drawn, by their place."""
    running: int = 0
    waiting: int = 0
    pages: int = 0
    pages_used: int = 0
    pages_cached: int = 0
    page_bytes: int = 0
    step_seconds: float = 0.0
    model_seconds: float = 0.0
    sampling_seconds: float = 0.0
    """Of the step's seconds; the rest is scheduling and text."""
    recent_steps: list[tuple[float, float, float]] = field(default_factory=list)
    """Seconds of the last steps: all of it, the model, the sampler."""

    def count_step(self, total: float, model: float, sampling: float) -> None:
        """Add one step's seconds."""
        self.steps += 1
        self.step_seconds += total
        self.model_seconds += model
        self.sampling_seconds += sampling
        if len(self.recent_steps) >= 2 * _STEPS_KEPT:
            del self.recent_steps[:_STEPS_KEPT]
        self.recent_steps.append((total, model, sampling))

    def count_drafts(self, drafted: int, accepted: int) -> None:
        """Add one sequence's drafts of a step."""
        for counts, number in ((self.drafted, drafted), (self.accepted, accepted)):
            counts.extend([0] * (number - len(counts)))
            for place in range(number):
                counts[place] += 1

    def snapshot(self) -> dict[str, Any]:
        """All of it as plain values, without the single steps."""
        values = asdict(self)
        del values["recent_steps"]
        return values
