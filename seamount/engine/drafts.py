"""How many guesses of the tokens that come next are worth their time.

A draft costs time and never a token: it is accepted exactly if it is the token that the sampler draws at its place. So
nothing here has to be right; it has to pay. What pays is learnt: each sequence's share of right drafts, what a step of
so many tokens takes, and what so many guesses take.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Mapping
from statistics import median
from typing import Protocol
from weakref import WeakKeyDictionary

from torch import Tensor

from seamount.engine.request import Sequence

MOST_DRAFTS = 8
PROBE_EVERY = 32
"""Steps, one of which does the opposite of what pays: so nothing is given up for ever, and both ways' times are new."""
_FADE = 0.9  # what a sequence's past counts for after each draft
_SHARED_FADE = 0.98  # and that of all sequences together
_HOPE = 0.3  # the rate that a probe supposes at least


class DraftSource(Protocol):
    """Where guesses come from."""

    needs_hidden: bool
    """Whether `read` is to be called."""

    def guess(self, counts: Mapping[Sequence, int]) -> dict[Sequence, list[int]]:
        """Up to so many tokens that may follow each sequence's last. Its pages have room for their rows."""

    def read(self, sequence: Sequence, first: int, hidden_TD: Tensor) -> None:
        """A step computed a sequence's rows from `first` on; the hidden states of those that stand."""

    def fork(self, sequence: Sequence, twin: Sequence) -> None:
        """Another sequence has the same rows."""


class Times:
    """How long something takes, by its size: the median of what was seen last, and lines between.

    One slow measurement changes nothing, and what was not seen for long is forgotten.
    Units: seconds.
    """

    def __init__(self, kept: int = 5, forgotten_after: int = 16 * PROBE_EVERY) -> None:
        self._kept, self._forgotten_after = kept, forgotten_after
        self._count = 0
        self._seen: dict[int, tuple[int, deque[float]]] = {}  # when, by the count, and the last measurements
        self._sizes: list[int] = []
        self._medians: list[float] = []

    def observe(self, size: int, seconds: float) -> None:
        """So much took so long."""
        self._count += 1
        known = self._seen.get(size)
        recent = deque[float](maxlen=self._kept) if known is None else known[1]
        recent.append(seconds)
        self._seen[size] = self._count, recent
        self._seen = {n: one for n, one in self._seen.items() if self._count - one[0] < self._forgotten_after}
        self._sizes = sorted(self._seen)
        self._medians = [median(self._seen[n][1]) for n in self._sizes]

    @property
    def largest(self) -> int:
        """The largest size seen."""
        return self._sizes[-1] if self._sizes else 0

    def __call__(self, size: int) -> float:
        """The time that is expected; beyond what was seen that of the nearest; 0 if nothing was seen."""
        sizes, medians = self._sizes, self._medians
        place = bisect_left(sizes, size)
        if not 0 < place < len(sizes):
            return medians[min(place, len(sizes) - 1)] if sizes else 0.0
        share = (size - sizes[place - 1]) / (sizes[place] - sizes[place - 1])
        return medians[place - 1] * (1 - share) + medians[place] * share


class Drafter:
    """Decides how many drafts each sequence gets, and has them made by one source; without a source, none."""

    def __init__(
        self,
        source: DraftSource | None = None,
        most: int = MOST_DRAFTS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._source, self._most, self._clock = source, most, clock
        self._step_times, self._guess_times = Times(), Times()
        self._rate = 0.5
        self._rates: WeakKeyDictionary[Sequence, float] = WeakKeyDictionary()
        self._steps = 0
        self._guessed_seconds = 0.0

    @property
    def needs_hidden(self) -> bool:
        """Whether `read` and `fork` are to be called."""
        return self._source is not None and self._source.needs_hidden

    def counts(self, rooms: Mapping[Sequence, int]) -> dict[Sequence, int]:
        """How many drafts each of the sequences that draw their next token is to get, at most its room: 0 is left out.

        Drafts are given out in the order of their chance to be right, as many as make the most tokens for a step's
        time.
        Cost: sorts a few numbers for each sequence.
        """
        # The first step goes without, to see what drafts have to be better than.
        if self._source is None or not rooms or not self._step_times.largest:
            return {}
        counts = self._best_counts(rooms)
        self._steps += 1
        if self._steps % PROBE_EVERY:
            return counts
        probing = {sequence: 1 for sequence, room in rooms.items() if room > 0 and sequence not in counts}
        for sequence in probing:
            self._rates[sequence] = max(self._rates.get(sequence, self._rate), _HOPE)
        return probing

    def guess(self, counts: Mapping[Sequence, int]) -> dict[Sequence, list[int]]:
        """The drafts, at most so many each."""
        self._guessed_seconds = 0.0
        if self._source is None or not counts:
            return {}
        started = self._clock()
        drafts = self._source.guess(counts)
        self._guessed_seconds = self._clock() - started
        self._guess_times.observe(sum(counts.values()), self._guessed_seconds)
        return drafts

    def observe(self, sequence: Sequence, num_drafts: int, accepted: int) -> None:
        """So many of a sequence's drafts were drawn."""
        # Of the drafts that were looked at, all but the last were right, or all.
        rate = self._rates.get(sequence, self._rate)
        for place in range(min(num_drafts, accepted + 1)):
            is_right = place < accepted
            rate = _FADE * rate + (1 - _FADE) * is_right
            self._rate = _SHARED_FADE * self._rate + (1 - _SHARED_FADE) * is_right
        self._rates[sequence] = rate

    def time(self, num_tokens: int, seconds: float) -> None:
        """A step in which all sequences drew their next token took so long, its guesses included."""
        self._step_times.observe(num_tokens, seconds - self._guessed_seconds)

    def read(self, sequence: Sequence, first: int, hidden_TD: Tensor) -> None:
        """Hand on what the source needs: see DraftSource."""
        assert self._source is not None
        self._source.read(sequence, first, hidden_TD)

    def fork(self, sequence: Sequence, twin: Sequence) -> None:
        """Hand on what the source needs: see DraftSource."""
        assert self._source is not None
        self._source.fork(sequence, twin)

    def _best_counts(self, rooms: Mapping[Sequence, int]) -> dict[Sequence, int]:
        chances = sorted(
            # A sequence's share of right drafts; what is new begins with that of all.
            (-(self._rates.get(sequence, self._rate) ** place), place, number, sequence)
            for number, (sequence, room) in enumerate(rooms.items())
            for place in range(1, min(room, self._most) + 1)
        )
        # At most as many as ever went through a step: so what drafts cost is tried out in small parts.
        chances = chances[: max(len(rooms), self._step_times.largest)]
        tokens, best = float(len(rooms)), 0
        most = tokens / self._step_times(len(rooms))
        for size, (chance, *_) in enumerate(chances, start=1):
            tokens -= chance
            speed = tokens / (self._step_times(len(rooms) + size) + self._guess_times(size))
            if speed > most:
                best, most = size, speed
        return dict(Counter(sequence for *_, sequence in chances[:best]))
