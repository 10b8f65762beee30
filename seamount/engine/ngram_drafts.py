"""Drafts from the text itself: what followed the last tokens before will follow them again."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from weakref import WeakKeyDictionary

from torch import Tensor

from seamount.engine.request import Sequence

_SIZE = 3  # tokens that must agree
_PLACES = 1 << 15


class NGrams:
    """Guesses that what followed the last three tokens where they stood last will follow them again.

    Cost: for each sequence a table of 128 KiB; for each new token one entry, and of a long prompt's the last 32,768
    alone. Of two n-grams that want one entry the older is forgotten.
    Source: prompt lookup decoding, Saxena 2023.
    """

    needs_hidden = False

    def __init__(self) -> None:
        self._seen: WeakKeyDictionary[Sequence, _Seen] = WeakKeyDictionary()

    def guess(self, counts: Mapping[Sequence, int]) -> dict[Sequence, list[int]]:
        """What followed; where that ends with the text, it begins again."""
        return {sequence: self._following(sequence, count) for sequence, count in counts.items()}

    def read(self, sequence: Sequence, first: int, hidden_TD: Tensor) -> None:
        """Not needed."""

    def fork(self, sequence: Sequence, twin: Sequence) -> None:
        """Not needed: the twin's own tokens tell."""

    def _following(self, sequence: Sequence, count: int) -> list[int]:
        tokens = sequence.tokens
        seen = self._seen.get(sequence)
        if seen is None:
            seen = self._seen[sequence] = _Seen()
        place = seen.note_and_find(tokens)
        return [tokens[place + i % (len(tokens) - place)] for i in range(count)] if place else []


class _Seen:
    """Where each n-gram of a sequence ended last, as far as the table knows."""

    def __init__(self) -> None:
        self._end, self._places = _SIZE, array("i", bytes(4 * _PLACES))

    def note_and_find(self, tokens: list[int]) -> int:
        """Where the last n-gram ended before; 0 if nowhere. The one at the end is noted once a token follows it."""
        self._end = max(self._end, len(tokens) - _PLACES)
        while self._end < len(tokens):
            self._places[_entry(tokens[self._end - _SIZE : self._end])] = self._end
            self._end += 1
        last = tokens[-_SIZE:]
        place = self._places[_entry(last)]
        return place if place and tokens[place - _SIZE : place] == last else 0


def _entry(tokens: list[int]) -> int:
    return hash(tuple(tokens)) % _PLACES
