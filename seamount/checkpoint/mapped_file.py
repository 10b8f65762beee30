"""A file mapped into memory: its bytes as tensors without a copy, and its pages handed back when they were copied."""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path

import torch

from seamount.errors import CheckpointError, CorruptFile

COPY_BYTES = 1 << 22


class MappedFile:
    """A read-only file as one private mapping.

    Errors: CheckpointError when it cannot be read, CorruptFile when it is empty or no regular file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Looked at before it is opened: opening a pipe would wait for a writer for ever.
            if not stat.S_ISREG(path.stat().st_mode):
                raise CorruptFile(f"{path} is not a regular file; a checkpoint consists of regular files")
            with path.open("rb") as file:
                self.size = os.fstat(file.fileno()).st_size
                if self.size == 0:
                    raise CorruptFile(f"{path} is empty; fetch or write it again")
                self.map = _private_map(file.fileno(), self.size)
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error

    def typed(self, offset: int, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
        """The tensor that lies at `offset`; a view of the file where alignment allows, else a copy."""
        elements = 1
        for size in shape:
            elements *= size
        if elements == 0:
            return torch.empty(shape, dtype=dtype)
        # The mapping is never closed by hand: torch keeps the object alive but not its buffer locked, so an explicit
        # close would leave every tensor made here pointing at unmapped memory.
        raw = torch.frombuffer(self.map, dtype=torch.uint8, count=elements * dtype.itemsize, offset=offset)
        if offset % dtype.itemsize:
            raw = raw.clone()
        return raw.view(dtype).reshape(shape)

    def copy_into(self, offset: int, dtype: torch.dtype, out: torch.Tensor) -> None:
        """Copy and convert the tensor at `offset` into a contiguous `out`, piece by piece, and release its pages."""
        flat = out.view(-1)
        step = COPY_BYTES // dtype.itemsize
        for first in range(0, flat.numel(), step):
            count = min(step, flat.numel() - first)
            start = offset + first * dtype.itemsize
            flat[first : first + count].copy_(self.typed(start, dtype, (count,)))
            self.release(start, count * dtype.itemsize)

    def release(self, offset: int, nbytes: int) -> None:
        """Tell the system that these bytes were used; views of them stay valid and are read again when touched."""
        first = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (offset + nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first and hasattr(self.map, "madvise"):
            self.map.madvise(mmap.MADV_DONTNEED, first, last - first)


def _private_map(descriptor: int, size: int) -> mmap.mmap:
    # Writable and private, because torch takes no read-only memory; without reservation, because otherwise Linux
    # refuses a file larger than the machine's memory.
    if hasattr(mmap, "MAP_NORESERVE"):
        flags = mmap.MAP_PRIVATE | mmap.MAP_NORESERVE
        return mmap.mmap(descriptor, size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    return mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY)
