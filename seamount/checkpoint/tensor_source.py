"""What every checkpoint format offers to the model that is filled from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

import torch


class TensorSource(ABC):
    """Named tensors on disk, read one at a time and decoded on the way.

    Layout: the files are memory-mapped. A tensor from `read` may be a view of the file, so it must not be written to.
    Cost: `read` allocates at most the result and one block of rows; `read_into` only the block, and hands the file's
    pages back to the system, so that filling a model never holds it twice.
    """

    @abstractmethod
    def names(self) -> list[str]:
        """Every logical tensor, in the order of the files."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """The decoded tensor's shape, rows (output features) first."""

    @abstractmethod
    def dtype(self, name: str) -> torch.dtype:
        """The dtype that `read` gives when none is asked for."""

    @abstractmethod
    def read_into(self, name: str, out: torch.Tensor) -> None:
        """Decode into `out`, which has the tensor's shape and any floating or equal dtype."""

    @abstractmethod
    def read(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The decoded tensor on the CPU, in `dtype` or else in its own."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the files; tensors already read stay valid."""

    @property
    def nbytes(self) -> int:
        """The bytes that all tensors take after decoding, each in its own dtype."""
        total = 0
        for name in self.names():
            elements = 1
            for size in self.shape(name):
                elements *= size
            total += elements * self.dtype(name).itemsize
        return total

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
