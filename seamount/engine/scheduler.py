"""Who works in the next step, on how many tokens, and who must wait.

First come, first served: sequences run in the order in which their requests came, and where pages run out, the latest
gives its own back and waits again, ahead of all later ones. What it had drawn it keeps; its rows, if they are evicted
meanwhile, are computed again with the same bits. The earliest sequence can always go on, since the pool holds at least
one sequence of any length that is accepted.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from dataclasses import dataclass, field

from seamount.engine.config import EngineConfig
from seamount.engine.drafts import Drafter
from seamount.engine.held_rows import HeldRows
from seamount.engine.prefix_cache import PrefixCache
from seamount.engine.request import Request, Sequence
from seamount.kernels.paged import PAGE
from seamount.models.parts.pages import Cache

SCORED_TOKENS = 64
"""The most tokens of prompts in one step whose logits are all wanted."""
DRAFTED_TOKENS = 64
"""The most drafts in one step, beside what `max_running` leaves free: each needs a row of logits."""


def most_logits(config: EngineConfig) -> int:
    """The most rows of logits that one step needs."""
    return config.max_running + SCORED_TOKENS + (0 if config.drafts == "off" else DRAFTED_TOKENS)


@dataclass(slots=True)
class Work:
    """A sequence's part in a step: its next `count` tokens, then drafts of those that may follow."""

    sequence: Sequence
    count: int
    is_last: bool
    """Whether a token is drawn at the end."""
    drafts: list[int] = field(default_factory=list)

    @property
    def rows(self) -> HeldRows:
        """The sequence's rows and their pages."""
        assert self.sequence.rows is not None, "planned work has rows"
        return self.sequence.rows

    @property
    def cache(self) -> Cache:
        """The same rows as the model sees them."""
        return self.rows.cache

    @property
    def tokens(self) -> list[int]:
        """What goes through the model; to be asked before it does."""
        done = self.cache.length
        return self.sequence.tokens[done : done + self.count] + self.drafts

    @property
    def is_scored(self) -> bool:
        """Whether the tokens are of a prompt whose log-probabilities are wanted."""
        return self.sequence.request.wants_prompt_logprobs and not self.sequence.drawn

    @property
    def num_logits(self) -> int:
        """How many of the last tokens' logits are wanted."""
        return self.count if self.is_scored else len(self.drafts) + 1 if self.is_last else 0


class Scheduler:
    """Admits, orders and preempts sequences. Entered by the thread that steps alone."""

    def __init__(self, store: PrefixCache, config: EngineConfig, drafter: Drafter) -> None:
        self._store, self._config, self._drafter = store, config, drafter
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.preemptions = 0
        self._refused: tuple[Sequence, int] | None = None  # who did not fit, when so many pages were to be had

    def add(self, sequence: Sequence) -> None:
        """Let a new sequence wait."""
        self.waiting.append(sequence)

    def plan(self) -> list[Work]:
        """The work of the next step: those that decode, then prompts as far as the budget goes, then new ones."""
        preempted = self.preemptions
        decoding = [sequence for sequence in self.running if sequence.missing == 1]
        works = [self._decode(sequence) for sequence in decoding]
        plan = [work for work in works if work is not None and work.sequence.rows is not None]
        self._add_drafts(plan)
        budget = self._config.step_tokens - sum(work.count + len(work.drafts) for work in plan)
        if plan:
            budget = min(budget, self._config.mixed_tokens)
        for sequence in [one for one in self.running if one.missing > 1]:
            if budget > 0 and sequence.rows is not None:
                budget -= self._prefill(plan, sequence, budget)
        # Who had to give pages back must not take them again at once.
        while budget > 0 and self.preemptions == preempted and (admitted := self._admitted()) is not None:
            budget -= self._prefill(plan, admitted, budget)
        return [work for work in plan if work.sequence.rows is not None]

    def remove(self, sequence: Sequence, *, is_sound: bool = True) -> None:
        """Take a sequence out, wherever it is, and its pages back; they stay known if their rows are sound."""
        if sequence.rows is not None:
            self.running.remove(sequence)
            self._drop_rows(sequence, is_sound=is_sound)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def preempt(self, sequence: Sequence) -> None:
        """Let a running sequence wait again, in front of those that came later."""
        self.running.remove(sequence)
        self._drop_rows(sequence, is_sound=True)
        self.join(sequence, None)
        self.preemptions += 1

    def join(self, sequence: Sequence, rows: HeldRows | None) -> None:
        """Let an answer that has begun run with these rows, or wait where there are none or too many run."""
        if rows is not None and len(self.running) >= self._config.max_running:
            rows.release(sequence.tokens)
            rows = None
        if rows is None:
            place = sum(_order(other) < _order(sequence) for other in self.waiting)
            self.waiting.insert(place, sequence)
        else:
            sequence.rows = rows
            insort(self.running, sequence, key=_order)

    def _drop_rows(self, sequence: Sequence, *, is_sound: bool) -> None:
        assert sequence.rows is not None
        sequence.rows.release(sequence.tokens if is_sound else None)
        sequence.rows = None

    def _decode(self, sequence: Sequence) -> Work | None:
        if sequence.rows is None:
            return None
        return Work(sequence, 1, True) if self._reserve(sequence, sequence.rows.cache.length + 1) else None

    def _add_drafts(self, plan: list[Work]) -> None:
        """Let those that decode guess, as far as it pays and pages are to be had: nobody is preempted for a guess."""
        most = min(self._config.step_tokens, self._config.max_running + DRAFTED_TOKENS)
        share = most // max(1, len(self.running)) - 1
        # Of a prompt's last token the logits alone are wanted.
        answers = [work.sequence for work in plan if work.sequence.drawn]
        counts = self._drafter.counts({sequence: min(sequence.room - 1, share) for sequence in answers})
        for work in plan:
            count = counts.get(work.sequence, 0)
            if count and not work.rows.reserve(work.cache.length + 1 + count):
                del counts[work.sequence]
        drafts = self._drafter.guess(counts)
        for work in plan:
            work.drafts = drafts.get(work.sequence, [])

    def _prefill(self, plan: list[Work], sequence: Sequence, budget: int) -> int:
        count = min(sequence.missing, budget)
        if sequence.request.wants_prompt_logprobs and not sequence.drawn:
            count = min(count, SCORED_TOKENS - sum(work.count for work in plan if work.is_scored))
            if not count:
                return 0
        assert sequence.rows is not None
        if not self._reserve(sequence, sequence.rows.cache.length + count):
            return 0
        plan.append(Work(sequence, count, count == sequence.missing))
        return count

    def _reserve(self, sequence: Sequence, rows: int) -> bool:
        """Pages for a running sequence, taken from the latest if need be; False if it was itself the latest."""
        assert sequence.rows is not None
        while not sequence.rows.reserve(rows):
            latest = self.running[-1]
            assert latest is not sequence or len(self.running) > 1, "one sequence alone must fit into the pool"
            self.preempt(latest)
            if latest is sequence:
                return False
        return True

    def _admitted(self) -> Sequence | None:
        """The first that waits, now running, if the pool has room for its tokens beside what the others hold."""
        if not self.waiting or len(self.running) >= self._config.max_running:
            return None
        sequence = self.waiting[0]
        if self.running and self._refused == (sequence, self._store.available):
            return None
        request = sequence.request
        # The last token's logits are wanted, and so are all of the prompt's where it is scored.
        limit = 0 if request.wants_prompt_logprobs and not sequence.drawn else len(sequence.tokens) - 1
        rows = HeldRows(self._store, capacity_of(request), sequence.tokens, limit)
        if self.running and self._store.available * PAGE < len(sequence.tokens) - rows.found + PAGE:
            rows.release(sequence.tokens)
            self._refused = sequence, self._store.available
            return None
        self._store.hit_tokens += rows.found
        if request.cached_tokens is None:
            request.cached_tokens = rows.found
        self.waiting.popleft()
        self.join(sequence, rows)
        return sequence


def capacity_of(request: Request) -> int:
    """Rows that a request's longest answer needs: the last token of an answer is never fed back."""
    return len(request.prompt) + request.max_tokens - 1


def _order(sequence: Sequence) -> tuple[int, int]:
    return sequence.request.id, sequence.index
