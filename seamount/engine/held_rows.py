"""The rows of one sequence: shared pages of known content first, then pages of its own that are being filled."""

from __future__ import annotations

from collections.abc import Sequence

from seamount.engine.prefix_cache import PrefixCache
from seamount.kernels.paged import PAGE
from seamount.models.parts.pages import Cache


class HeldRows:
    """What one sequence holds of the pool, from admission until it ends or is preempted.

    capacity: the most rows that it will ever have. limit: how many of `tokens` may be taken as computed already.
    """

    def __init__(self, store: PrefixCache, capacity: int, tokens: Sequence[int] = (), limit: int = 0) -> None:
        self._store = store
        self.cache = Cache(store.pages, [0] * -(-capacity // PAGE), capacity)
        self.nodes, page, rows = store.match(tokens, limit)
        self.own = [page] if rows else []
        for place, node in enumerate(self.nodes):
            self.cache.table[place] = node.page
        if rows:
            self.cache.table[len(self.nodes)] = page
        self.cache.length = self.found = len(self.nodes) * PAGE + rows

    def reserve(self, rows: int) -> bool:
        """Have pages for so many rows; False if the pool has none left, and then what was taken stays."""
        while (held := len(self.nodes) + len(self.own)) * PAGE < rows:
            page = self._store.take()
            if page is None:
                return False
            self.cache.table[held] = page
            self.own.append(page)
        return True

    def share(self, tokens: Sequence[int]) -> None:
        """Make every page that is full of rows known to others: `tokens` are those of the rows."""
        while len(self.nodes) < self.cache.length // PAGE:
            place = len(self.nodes)
            parent = self.nodes[-1] if self.nodes else None
            node = self._store.insert(parent, tokens[place * PAGE : (place + 1) * PAGE], self.own.pop(0))
            self.nodes.append(node)
            self.cache.table[place] = node.page

    def fork(self) -> HeldRows | None:
        """The same rows for another sequence: full pages shared, the last one copied. None if there is no page."""
        rest = self.cache.length - len(self.nodes) * PAGE
        assert rest < PAGE, "share before you fork"
        page = self._store.take() if rest else None
        if rest and page is None:
            return None
        twin = HeldRows(self._store, self.cache.capacity)
        self._store.hold(self.nodes)
        twin.nodes, twin.own = list(self.nodes), [] if page is None else [page]
        twin.cache.table[: len(self.nodes) + 1] = self.cache.table[: len(self.nodes) + 1]
        if page is not None:
            self._store.pages.copy(self.own[0], page)
            twin.cache.table[len(self.nodes)] = page
        twin.cache.length = self.cache.length
        return twin

    def release(self, tokens: Sequence[int] | None) -> None:
        """Give everything back. `tokens` of the rows: they stay known while there is room; None: they are in doubt."""
        if tokens is not None:
            self.share(tokens)
            start = len(self.nodes) * PAGE
            if self.cache.length > start:
                parent = self.nodes[-1] if self.nodes else None
                self._store.keep(parent, tokens[start : self.cache.length], self.own.pop(0))
        for page in self.own:
            self._store.give(page)
        self._store.release(self.nodes)
        self.nodes, self.own, self.cache.length = [], [], 0
