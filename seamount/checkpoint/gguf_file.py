"""A .gguf file as a source of tensors and of the metadata that config and tokenizer are made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from seamount.checkpoint.gguf_blocks import CHUNK_ELEMENTS, decode_blocks
from seamount.checkpoint.gguf_header import GGUFTensor, parse_gguf_header
from seamount.checkpoint.gguf_types import GGMLType
from seamount.checkpoint.mapped_file import MappedFile
from seamount.checkpoint.tensor_source import TensorSource
from seamount.errors import CheckpointError


class GGUFFile(TensorSource):
    """A memory-mapped GGUF file; names are the file's own, shapes torch's.

    Errors: CorruptFile or CheckpointError on opening, before any tensor is read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mapped: MappedFile | None = MappedFile(path)
        header = parse_gguf_header(self._mapped)
        self.version = header.version
        self.metadata: dict[str, Any] = header.metadata
        self._tensors = header.tensors

    def names(self) -> list[str]:
        """Every tensor, in the order of the file."""
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape, rows first: the reverse of the file's order."""
        return self._stored(name).shape

    def dtype(self, name: str) -> torch.dtype:
        """The stored dtype; float32 for every quantised type."""
        return self._stored(name).kind.decoded

    def read(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The tensor in `dtype` or its own; a view of the file where nothing is to be converted."""
        stored = self._stored(name)
        plain = stored.kind.plain
        if plain is not None and dtype in (None, plain):
            return self._file().typed(stored.offset, plain, stored.shape)
        out = torch.empty(stored.shape, dtype=dtype or stored.kind.decoded)
        self.read_into(name, out)
        return out

    def read_into(self, name: str, out: torch.Tensor) -> None:
        """Decode into `out`, which has the tensor's shape."""
        stored = self._stored(name)
        assert tuple(out.shape) == stored.shape, f"{name}: shape {stored.shape} read into {tuple(out.shape)}"
        if not out.is_contiguous():
            out.copy_(self.read(name))
        elif stored.kind.plain is not None:
            self._file().copy_into(stored.offset, stored.kind.plain, out)
        else:
            self._decode(stored, out.view(-1))

    def kind(self, name: str) -> GGMLType:
        """The tensor's element type."""
        return self._stored(name).kind

    def blocks(self, name: str) -> torch.Tensor:
        """The tensor as it is stored, a view of the file: uint8 (rows, bytes of a row), all rows in one dimension."""
        stored = self._stored(name)
        row_bytes = stored.shape[-1] // stored.kind.block_elements * stored.kind.block_bytes
        return self._file().typed(stored.offset, torch.uint8, (stored.nbytes // row_bytes, row_bytes))

    def release(self, name: str) -> None:
        """Tell the system that the view from `blocks` was used; it is read again when touched."""
        stored = self._stored(name)
        self._file().release(stored.offset, stored.nbytes)

    def close(self) -> None:
        """Let go of the file; tensors already read stay valid."""
        self._mapped = None

    def _decode(self, stored: GGUFTensor, flat: torch.Tensor) -> None:
        mapped, kind = self._file(), stored.kind
        for first in range(0, flat.numel(), CHUNK_ELEMENTS):
            count = min(CHUNK_ELEMENTS, flat.numel() - first)
            start = stored.offset + first // kind.block_elements * kind.block_bytes
            nbytes = count // kind.block_elements * kind.block_bytes
            decode_blocks(kind, mapped.typed(start, torch.uint8, (nbytes,)), flat[first : first + count])
            mapped.release(start, nbytes)

    def _file(self) -> MappedFile:
        if self._mapped is None:
            raise CheckpointError(f"{self.path} was closed before it was read")
        return self._mapped

    def _stored(self, name: str) -> GGUFTensor:
        if name not in self._tensors:
            raise CheckpointError(f"{self.path} has no tensor {name!r}")
        return self._tensors[name]
