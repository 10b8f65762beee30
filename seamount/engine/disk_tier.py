"""The prefix cache's second tier: pages on a disk, written in the background, that survive a restart.

A page's key is a hash over all tokens up to its end and over the model that they went through, so nobody asks for a
page of another model, layout or prefix; pages that nobody asks for any more are the first to go.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from seamount.engine.page_files import PageFiles, token_bytes

_log = logging.getLogger("seamount")


def root_key(fingerprint: bytes, layout: str) -> bytes:
    """The key before the first page: of a model's fingerprint, and a description of how its rows lie in a page."""
    return hashlib.blake2b(fingerprint + layout.encode(), digest_size=32, person=b"seamount root").digest()


def child_key(parent: bytes, tokens: Sequence[int]) -> bytes:
    """The key of the page of these tokens that follows the parent's."""
    return hashlib.blake2b(parent + token_bytes(tokens), digest_size=32, person=b"seamount page").digest()


@dataclass(frozen=True)
class TierStatistics:
    """What a tier holds, and what it has done since it was opened."""

    pages: int
    """As of the last look into the directory, like `bytes`, and what was written since."""
    bytes: int
    writes: int
    drops: int
    """Pages not written: the queue was full, the tier closed, or the directory no longer writable."""
    hits: int
    misses: int
    corrupt: int
    """Files that did not hold what their names say: deleted, and misses too."""
    evictions: int


class DiskTier:
    """Pages by key in a directory that holds at most `limit_bytes`; those used longest ago make room for new ones.

    `page_bytes` is the size of every page; up to `queue_bytes` of copies wait to be written. Any thread may call.
    Errors: ConfigError for a limit that holds no page, and for a directory that cannot be used or is in other use.
    Afterwards a fault of the disk raises nothing: it is logged, no more is written, and what cannot be read is a miss.
    """

    def __init__(self, directory: Path, limit_bytes: int, page_bytes: int, queue_bytes: int = 64 << 20) -> None:
        self._files = PageFiles(directory, limit_bytes, page_bytes)
        self._directory, self._page_bytes = directory, page_bytes
        self._most_queued = max(1, queue_bytes // page_bytes)
        self._queued: dict[bytes, tuple[Sequence[int], Tensor]] = {}  # in order; the first one is being written
        self._spare: list[Tensor] = []  # to be used again: fresh memory costs more than the copy into it
        self._is_open = self._is_writable = True
        self._writes = self._drops = self._hits = self._misses = 0
        self._changed = threading.Condition()
        self._writer = threading.Thread(target=self._write_queued, name="seamount disk tier", daemon=True)
        self._writer.start()

    @property
    def statistics(self) -> TierStatistics:
        """The counts as they are now."""
        files = self._files
        with self._changed:
            return TierStatistics(
                files.pages, files.bytes, self._writes, self._drops, self._hits, self._misses, files.corrupt,
                files.evictions,
            )  # fmt: skip

    def __contains__(self, key: bytes) -> bool:
        """Whether a page of this key is there or on its way; it may yet turn out to be damaged, or go."""
        return key in self._queued or key in self._files

    def save(self, key: bytes, tokens: Sequence[int], page: Tensor) -> bool:
        """Have a page written; whether it is there or on its way. Never waits for a write.

        Shapes: 64 tokens; any contiguous tensor of `page_bytes` on any device, free to be overwritten afterwards.
        Cost: a copy of the page.
        """
        page_B = self._bytes_of(page)
        with self._changed:
            if key in self._queued or self._files.keep(key):
                return True
            if not (self._is_open and self._is_writable and len(self._queued) < self._most_queued):
                self._drops += 1
                return False
            copy_B = self._spare.pop() if self._spare else torch.empty(self._page_bytes, dtype=torch.uint8)
            self._queued[key] = tuple(tokens), copy_B.copy_(page_B)
            self._changed.notify_all()
        return True

    def load(self, key: bytes, tokens: Sequence[int], into: Tensor) -> bool:
        """Read a page; whether it was there and whole. If not, what stands in `into` must not be used.

        Shapes: as `save`.
        Cost: a read of the page, and a checksum at about the speed of memory.
        """
        into_B = self._bytes_of(into)
        with self._changed:
            queued_tokens, queued_B = self._queued.get(key, ((), into_B))
            if is_hit := queued_tokens == tuple(tokens):
                into_B.copy_(queued_B)
        if not is_hit:
            read_B = into_B if into_B.is_cpu else torch.empty(self._page_bytes, dtype=torch.uint8)
            try:
                is_hit = self._files.read(key, tokens, read_B)
            except OSError as error:
                self._give_up(error)
            if is_hit and read_B is not into_B:
                into_B.copy_(read_B)
        with self._changed:
            self._hits += is_hit
            self._misses += not is_hit
        return is_hit

    def flush(self, timeout: float | None = None) -> bool:
        """Wait for at most so many seconds until nothing is queued; whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queued, timeout)

    def close(self, timeout: float = 10.0) -> None:
        """Write what is queued, for at most so many seconds, and drop the rest; from now on pages are only loaded."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
            self.flush(timeout)
            # All but the first one, whose memory is in use.
            for key in list(self._queued)[1:]:
                del self._queued[key]
                self._drops += 1
        self._writer.join(max(0.0, deadline - time.monotonic()))

    def _bytes_of(self, page: Tensor) -> Tensor:
        page_B = page.detach().view(-1).view(torch.uint8)
        assert len(page_B) == self._page_bytes, f"a page of {len(page_B)} bytes in a tier of {self._page_bytes}"
        return page_B

    def _write_queued(self) -> None:
        """The writer's life: a first look at the directory, then page after page."""
        try:
            self._files.make_room()
        except OSError as error:
            self._give_up(error)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queued or not self._is_open)
                if not self._queued:
                    return
                key, (tokens, page_B) = next(iter(self._queued.items()))
            is_written = self._is_writable
            if is_written:
                try:
                    self._files.write(key, tokens, page_B)
                except OSError as error:
                    is_written = False
                    self._give_up(error)
            with self._changed:
                self._writes += is_written
                self._drops += not is_written
                del self._queued[key]
                self._spare.append(page_B)
                self._changed.notify_all()

    def _give_up(self, error: OSError) -> None:
        with self._changed:
            was_writable, self._is_writable = self._is_writable, False
        if was_writable:
            _log.warning("%s: %s; the disk tier writes no more pages until it is opened again", self._directory, error)
