"""Guessing the tokens that come next, so that one step may confirm several.

A draft costs time and never a token: it is accepted exactly if it is the token that the sampler draws at its place. How
many are worth their time is learnt: each sequence's share of right ones, and what a step of so many tokens takes.
"""

from __future__ import annotations

from typing import Protocol
from weakref import WeakKeyDictionary

from seamount.engine.request import Sequence

MOST_DRAFTS = 8
_FADE = 0.9  # what the past counts for after each step
_RETRY = 32  # tokens after which a sequence that gave up tries once more


class DraftSource(Protocol):
    """Where guesses come from."""

    def guess(self, sequence: Sequence, count: int) -> list[int]:
        """Up to `count` tokens that may follow a sequence's last."""


class NGrams:
    """Guesses that what followed the last tokens before will follow them again.

    Source: prompt lookup decoding, Saxena 2023.
    """

    def __init__(self, size: int = 3) -> None:
        self._size = size
        self._seen: WeakKeyDictionary[Sequence, _Seen] = WeakKeyDictionary()

    def guess(self, sequence: Sequence, count: int) -> list[int]:
        """What followed the last `size` tokens where they stood last, before."""
        tokens, seen = sequence.tokens, self._seen.setdefault(sequence, _Seen(self._size))
        # The n-gram at the end is noted once a token follows it.
        while seen.end < len(tokens):
            seen.places[tuple(tokens[seen.end - self._size : seen.end])] = seen.end
            seen.end += 1
        place = seen.places.get(tuple(tokens[-self._size :]))
        return [] if place is None else tokens[place : place + count]


class _Seen:
    """Where each n-gram of a sequence ended last, up to some place."""

    def __init__(self, end: int) -> None:
        self.end, self.places = end, dict[tuple[int, ...], int]()


class StepTimes:
    """How long a step of so many tokens takes, as far as it was seen.

    Units: seconds.
    """

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}

    def observe(self, num_tokens: int, seconds: float) -> None:
        """A step of so many tokens took so long."""
        known = self._seen.get(num_tokens)
        self._seen[num_tokens] = seconds if known is None else _FADE * known + (1 - _FADE) * seconds

    def __call__(self, num_tokens: int) -> float:
        """The time that is expected; for more tokens than were ever seen, that of the most: so they get their try."""
        below = max((n for n in self._seen if n <= num_tokens), default=None)
        above = min((n for n in self._seen if n >= num_tokens), default=None)
        if below is None or above is None or below == above:
            known = above if below is None else below
            return 1.0 if known is None else self._seen[known]
        share = (num_tokens - below) / (above - below)
        return self._seen[below] * (1 - share) + self._seen[above] * share


class Drafter:
    """Decides how many drafts each sequence gets, from one source; without a source, none."""

    def __init__(self, source: DraftSource | None = None, most: int = MOST_DRAFTS) -> None:
        self._source, self._most = source, most
        self._times = StepTimes()
        self._rates: WeakKeyDictionary[Sequence, float] = WeakKeyDictionary()
        self._resting: WeakKeyDictionary[Sequence, int] = WeakKeyDictionary()
        self._decoding = 1

    def begin(self, decoding: int) -> None:
        """A step is planned in which so many sequences draw their next token."""
        self._decoding = decoding

    def propose(self, sequence: Sequence, room: int) -> list[int]:
        """Up to `room` tokens that may follow a sequence's last."""
        if self._source is None or room < 1:
            return []
        count = min(room, self._count(sequence))
        return self._source.guess(sequence, count) if count else []

    def observe(self, sequence: Sequence, num_drafts: int, accepted: int) -> None:
        """So many of a sequence's drafts were drawn."""
        # Of the drafts that were looked at, all but the last were right, or all.
        looked_at = min(num_drafts, accepted + 1)
        rate = self._rates.get(sequence, 0.5)
        for place in range(looked_at):
            rate = _FADE * rate + (1 - _FADE) * (place < accepted)
        self._rates[sequence] = rate

    def time(self, num_tokens: int, seconds: float) -> None:
        """A step in which all sequences drew their next token took so long."""
        self._times.observe(num_tokens, seconds)

    def _count(self, sequence: Sequence) -> int:
        """The number of drafts with the most tokens for a step's time."""
        rest = self._resting.get(sequence, 0)
        if rest > sequence.drawn:
            return 0
        rate = self._rates.get(sequence, 0.5)
        best, most, gain = 0, 1 / self._times(self._decoding), 1.0
        for count in range(1, self._most + 1):
            gain += rate**count
            speed = gain / self._times(self._decoding * (1 + count))
            if speed > most:
                best, most = count, speed
        if not best:
            self._resting[sequence] = sequence.drawn + _RETRY
            self._rates[sequence] = max(rate, 0.3)
        return best
