"""Pages and their tree under random use: every row that is found is that of its whole prefix, and no page is lost."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from seamount.engine.disk_tier import DiskTier
from seamount.engine.held_rows import HeldRows
from seamount.engine.prefix_cache import PrefixCache
from seamount.models.parts.pages import PageLayout, Pages

LONGEST = 400
LAYOUT = PageLayout([1], torch.float32)


def value(tokens: list[int], salt: int) -> float:
    """A row of the last of these tokens: another one for every prefix."""
    return float(zlib.crc32(np.array([salt, *tokens], np.int64).tobytes()) % 2**24)


class Use(RuleBasedStateMachine):
    """Sequences that come, grow, fork, end in honour or not, and are forgotten."""

    directory: Path | None = None

    @initialize(pages=st.integers(1, 20))
    def start(self, pages: int) -> None:
        tier = None
        if self.directory is not None:
            tier = DiskTier(self.directory, 1 << 20, LAYOUT.nbytes)
        self.tier, self.salt = tier, 0
        self.store = PrefixCache(Pages(LAYOUT, pages, torch.device("cpu")), tier, bytes(32))
        self.held: list[tuple[list[int], HeldRows]] = []

    @rule(text=st.integers(0, 2), size=st.integers(1, LONGEST), end=st.integers(0, 3), limit=st.integers(0, LONGEST))
    def come(self, text: int, size: int, end: int, limit: int) -> None:
        tokens = [(text + i // 90) % 3 for i in range(size)] + [end]
        limit = min(limit, len(tokens) - 1)
        rows = HeldRows(self.store, LONGEST + 100, tokens, limit)
        assert rows.found <= limit
        self.held.append((tokens, rows))
        self.look(tokens, rows)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 99), count=st.integers(1, 150), data=st.data())
    def grow(self, which: int, count: int, data: st.DataObject) -> None:
        tokens, rows = self.held[which % len(self.held)]
        length = min(rows.cache.length + count, rows.cache.capacity)
        while len(tokens) < length:
            tokens.append(len(tokens) % 2)
        if not rows.reserve(length):
            return
        assert self.store.available >= 0
        for place in range(rows.cache.length, length):
            page = int(rows.cache.table[place // 64])
            self.store.pages.rows(0)[page, place % 64] = value(tokens[: place + 1], self.salt)
        rows.cache.length = length
        rows.share(tokens)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 99))
    def fork(self, which: int) -> None:
        tokens, rows = self.held[which % len(self.held)]
        twin = rows.fork()
        if twin is not None:
            self.held.append((list(tokens), twin))
        else:
            assert self.store.available == 0

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 99), is_sound=st.booleans())
    def leave(self, which: int, is_sound: bool) -> None:
        tokens, rows = self.held.pop(which % len(self.held))
        rows.release(tokens if is_sound else None)

    @rule()
    def forget(self) -> None:
        for tokens, rows in self.held:
            rows.release(tokens)
        self.held, self.salt = [], self.salt + 1
        self.store.clear(self.salt.to_bytes(32, "little"))
        assert self.store.available == self.store.pages.count
        assert self.store.cached == 0

    @invariant()
    def nothing_is_lost_or_wrong(self) -> None:
        if not hasattr(self, "store"):
            return
        self.store.check([rows.nodes for _, rows in self.held], [page for _, rows in self.held for page in rows.own])
        for page in self.store._free:
            self.store.pages.memory[page].fill_(255)
        for tokens, rows in self.held:
            self.look(tokens, rows)
        if not self.held:
            assert self.store.available == self.store.pages.count

    def look(self, tokens: list[int], rows: HeldRows) -> None:
        places = {0, rows.cache.length // 2, rows.cache.length - 1, rows.cache.length // 64 * 64 - 1}
        for place in places:
            if 0 <= place < rows.cache.length:
                page = int(rows.cache.table[place // 64])
                assert float(self.store.pages.rows(0)[page, place % 64, 0]) == value(tokens[: place + 1], self.salt)

    def teardown(self) -> None:
        if getattr(self, "tier", None) is not None:
            self.tier.close()


@pytest.mark.parametrize("has_disk", [False, True])
def test_rows_found_are_those_of_the_prefix_and_no_page_is_lost(tmp_path: Path, has_disk: bool) -> None:
    Use.directory = tmp_path / "pages" if has_disk else None
    run_state_machine_as_test(
        Use,
        settings=settings(
            max_examples=15 if has_disk else 60,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_all_pages_can_be_had_again_and_again() -> None:
    store = PrefixCache(Pages(LAYOUT, 9, torch.device("cpu")))
    for number in range(5):
        rows = HeldRows(store, 9 * 64)
        assert rows.reserve(9 * 64)
        assert not rows.reserve(9 * 64 + 1)
        assert store.available == 0
        rows.cache.length = 9 * 64 - 20
        rows.release([number] * (9 * 64 - 20))
        assert (store.available, store.cached) == (9, 9)
    assert store.evictions == 36
