"""Where the time of an engine's steps goes."""

from __future__ import annotations

import time
from statistics import median
from typing import Any, NamedTuple

from seamount.engine import Engine


class Step(NamedTuple):
    """Seconds of one step, those of the model and the sampler in it, and the tokens that went through the model."""

    seconds: float
    model: float
    sampling: float
    num_tokens: int


class TimedSteps:
    """Runs an engine's steps and keeps their times, with all that is around the scheduler's own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.steps: list[Step] = []

    def run(self) -> None:
        """One step."""
        metrics = self._engine.metrics
        count, computed = metrics.steps, metrics.computed_tokens
        started = time.perf_counter()
        self._engine.step()
        seconds = time.perf_counter() - started
        if metrics.steps > count:
            _, model, sampling = metrics.recent_steps[-1]
            self.steps.append(Step(seconds, model, sampling, metrics.computed_tokens - computed))

    def summary(self) -> dict[str, Any]:
        """Medians over the steps. Overhead is what is neither the model nor the sampler: plans, text, deliveries."""
        steps = self.steps
        return {
            "steps": len(steps),
            "step_seconds": median(one.seconds for one in steps),
            "overhead_seconds": median(_overhead(one) for one in steps),
            "overhead_share": median(_overhead(one) / one.seconds for one in steps),
            "sampling_seconds": median(one.sampling for one in steps),
            "sampling_share": median(one.sampling / one.seconds for one in steps),
        }


def _overhead(step: Step) -> float:
    return step.seconds - step.model - step.sampling
