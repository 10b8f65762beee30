"""Memory that is taken from the system only where it is written to."""

import mmap
from contextlib import suppress

import torch
from torch import Tensor

_HAS_ADVICE = hasattr(mmap, "MADV_HUGEPAGE")


def zeros(nbytes: int) -> Tensor:
    """Zeros that take no memory before they are written to, in huge pages where the system has them: uint8."""
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) if _HAS_ADVICE else bytearray(nbytes)
    if isinstance(memory, mmap.mmap):
        with suppress(OSError):  # a kernel that was built without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)
