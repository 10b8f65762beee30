"""Pages of the prefix cache as files of a directory: only what was written is ever read, and they stay below a limit.

A file's name is the page's key, and its content

    magic, version, number of tokens, bytes of the page | key | tokens | checksum of all this and of the page | page

It is written under a temporary name, then renamed. Nothing is synchronised to the disk: a page that a power failure
tore fails its checksum, and then costs what it costs to compute it again. Processes may share a directory: what is in
it is looked up each time, and how full it is counted on from the last look.
Trusted is whoever may write into the directory, by default its owner alone: a checksum is no signature.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from seamount import kernels
from seamount.errors import ConfigError
from seamount.kernels.paged import PAGE

_VERSION = 1
_MARKER = f"seamount-pages-{_VERSION}"  # the file that says whose directory it is
_FOLDERS = frozenset(f"{number:02x}" for number in range(256))  # one level, so that a look takes 256 listings at most
_START = struct.Struct("<8sIIQ32s")
_DIGEST_BYTES = 32
_ABANDONED_SECONDS = 600  # a temporary file this old has lost its writer, who needs some milliseconds
_SLACK = 16  # this part of the limit is freed at once, and written before the directory is looked at again

_log = logging.getLogger("seamount")


class PageFiles:
    """The files of a directory that hold pages of `page_bytes` bytes each; those used longest ago make room.

    One thread writes, any number reads. Methods raise the OSError that they meet.
    Errors: ConfigError for a limit that holds no page, and for a directory that cannot be used or is in other use.
    """

    def __init__(self, directory: Path, limit_bytes: int, page_bytes: int) -> None:
        self._page_bytes = page_bytes
        self._file_bytes = _START.size + 4 * PAGE + _DIGEST_BYTES + page_bytes
        if limit_bytes < self._file_bytes:
            raise ConfigError(
                f"the disk tier's limit of {limit_bytes} bytes is less than one page takes, which is "
                f"{self._file_bytes}: allow at least that, better gigabytes, or switch the tier off"
            )
        _prepare(directory)
        self._directory, self._limit = directory, limit_bytes
        self._temporary = f".{os.urandom(8).hex()}.tmp"
        self._unseen = limit_bytes  # bytes written since the last look: so many that the first write looks
        self._used_at = 0
        self.pages, self.bytes = 0, 0
        """What is there: as of the last look, and what was written since."""
        self.corrupt, self.evictions = 0, 0

    def __contains__(self, key: bytes) -> bool:
        """Whether there is a file of this name."""
        return os.path.exists(self._path(key))

    def keep(self, key: bytes) -> bool:
        """Whether there is a file of this name; if so, its page now counts as used last."""
        try:
            self._touch(self._path(key))
        except FileNotFoundError:
            return False
        except OSError:
            return key in self
        return True

    def read(self, key: bytes, tokens: Sequence[int], into_B: Tensor) -> bool:
        """Read a page to the CPU, and say whether it was there and whole; a file that is not is deleted."""
        path, start = self._path(key), self._start(key, tokens)
        try:
            with open(path, "rb") as file:
                found = file.read(len(start) + _DIGEST_BYTES)
                is_whole = file.readinto(into_B.numpy().data) == self._page_bytes and not file.read(1)
        except FileNotFoundError:
            return False
        if is_whole and found == start + _digest(start, into_B):
            with contextlib.suppress(OSError):
                self._touch(path)
            return True
        self.corrupt += 1
        path.unlink(missing_ok=True)
        _log.warning("%s was damaged, or not the page of its name: deleted; its tokens are computed again", path)
        return False

    def write(self, key: bytes, tokens: Sequence[int], page_B: Tensor) -> None:
        """Write a page from the CPU, after deleting as many as needed."""
        path, start = self._path(key), self._start(key, tokens)
        temporary = path.with_suffix(self._temporary)
        try:
            self.make_room(self._file_bytes)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(start + _digest(start, page_B))
                file.write(page_B.numpy().data)
            self._touch(temporary)
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        self.pages += 1
        self.bytes += self._file_bytes
        self._unseen += self._file_bytes

    def make_room(self, size: int = 0) -> None:
        """Delete the pages used longest ago until a file of this size fits; looks only when it may have to."""
        if self.bytes + size <= self._limit and self._unseen + size <= self._limit // _SLACK:
            return
        files = sorted(self._look())
        total, room = sum(file_bytes for _, file_bytes, _ in files), self._limit - size
        if total > room:
            room -= self._limit // _SLACK // self._file_bytes * self._file_bytes
        deleted = 0
        while total > room:
            _, file_bytes, path = files[deleted]
            Path(path).unlink(missing_ok=True)
            total, deleted = total - file_bytes, deleted + 1
        self.pages, self.bytes, self._unseen = len(files) - deleted, total, 0
        self.evictions += deleted

    def _look(self) -> Iterator[tuple[int, int, str]]:
        """When used last, bytes and path of every page; deletes temporary files that lost their writers."""
        for folder in _FOLDERS.intersection(os.listdir(self._directory)):
            for entry in os.scandir(self._directory / folder):
                # Another process may have deleted it since.
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat()
                    if entry.name.endswith(".page"):
                        yield status.st_mtime_ns, status.st_size, entry.path
                    elif entry.name.endswith(".tmp") and time.time() - status.st_mtime > _ABANDONED_SECONDS:
                        os.unlink(entry.path)

    def _touch(self, path: Path) -> None:
        """Make this the page used last; the kernel's own clock would leave ties."""
        self._used_at = max(self._used_at + 1, time.time_ns())
        os.utime(path, ns=(self._used_at, self._used_at))

    def _path(self, key: bytes) -> Path:
        return self._directory / key.hex()[:2] / f"{key.hex()[2:]}.page"

    def _start(self, key: bytes, tokens: Sequence[int]) -> bytes:
        assert len(tokens) == PAGE, f"{len(tokens)} tokens: only full pages are kept"
        return _START.pack(b"SEAPAGE\0", _VERSION, len(tokens), self._page_bytes, key) + token_bytes(tokens)


def token_bytes(tokens: Sequence[int]) -> bytes:
    """Token ids as int32, the lowest byte first."""
    return struct.pack(f"<{len(tokens)}i", *tokens)


def _digest(start: bytes, page_B: Tensor) -> bytes:
    return hashlib.blake2b(start + kernels.checksum(page_B), digest_size=_DIGEST_BYTES).digest()


def _prepare(directory: Path) -> None:
    """Make the directory this module's own, or see that it is; private, because a page tells what was asked."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = set(os.listdir(directory))
        # After the listing: another process that prepares it makes the marker before any folder.
        is_ours = (directory / _MARKER).exists()
        if foreign := sorted(names - {_MARKER} - (_FOLDERS if is_ours else set())):
            raise ConfigError(
                f"the disk tier's directory {directory} holds {foreign[0]!r}, which this version of the tier did not "
                "make: name a new or empty directory, or empty this one if nothing in it is needed"
            )
        if not is_ours:
            (directory / _MARKER).touch(mode=0o600)
    except OSError as error:
        raise ConfigError(
            f"the disk tier's directory {directory} cannot be used ({error.strerror}): name one that can be written, "
            "or switch the tier off"
        ) from error
