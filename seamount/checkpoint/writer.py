"""Writing a checkpoint in Hugging Face layout, so that a half-written one never passes for a finished one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from seamount.checkpoint.checkpoint_files import CONFIG_NAME, INDEX_NAME, NUMBERED_SHARD, SINGLE_NAME
from seamount.checkpoint.safetensors_header import DTYPE_NAMES, LINE_BYTES, build_header
from seamount.errors import CheckpointError

SHARD_BYTES = 5_000_000_000
PARTIAL_NAMES = ".seamount-*.partial"


class CheckpointWriter:
    """Streams tensors into shards of at most `shard_bytes`; a larger tensor gets a shard of its own.

    Tensors of the running shard are held, not copied, until it is full: they must not change meanwhile. Everything is
    written under other names first; `finish` renames the shards, then writes the index, then config.json. Without
    config.json a directory is no checkpoint, so a kill at any moment leaves none or all. With `overwrite` the former
    checkpoint stays whole until `finish`. One writer at a time per directory.
    Errors: CheckpointError for a directory that holds a checkpoint already, a name given twice, a dtype without a place
    in the format, or no tensors at all.
    """

    def __init__(
        self, directory: str | Path, config: dict[str, Any], *, shard_bytes: int = SHARD_BYTES, overwrite: bool = False
    ) -> None:
        self.directory = Path(directory)
        self.config_text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        self.shard_bytes = shard_bytes
        self.held: dict[str, torch.Tensor] = {}
        self.held_bytes = 0
        self.shards: list[list[str]] = []
        self.names: set[str] = set()
        self.total_bytes = 0
        self.is_finished = False
        self.directory.mkdir(parents=True, exist_ok=True)
        if not overwrite and self._former_files():
            raise CheckpointError(
                f"{self.directory} already holds a checkpoint ({self._former_files()[0].name}); "
                "choose another directory or ask to overwrite"
            )
        self._remove_partial()

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Take one tensor; it is written with the shard it falls into."""
        assert not self.is_finished, f"{name!r} was added after {self.directory} was finished"
        if name in self.names:
            raise CheckpointError(f"the tensor {name!r} is given twice for {self.directory}")
        if tensor.dtype not in DTYPE_NAMES:
            raise CheckpointError(
                f"{name!r} is {tensor.dtype}; a safetensors file holds {', '.join(DTYPE_NAMES.values())}"
            )
        if self.held and self.held_bytes + tensor.nbytes > self.shard_bytes:
            self._write_shard()
        self.names.add(name)
        self.total_bytes += tensor.nbytes
        self.held[name] = tensor
        self.held_bytes += tensor.nbytes

    def finish(self) -> None:
        """Write what is held and make the checkpoint appear; a second call does nothing."""
        if self.is_finished:
            return
        if self.held:
            self._write_shard()
        if not self.shards:
            raise CheckpointError(f"no tensors were given for {self.directory}")
        # config.json goes first and comes last: between the two there is no checkpoint here.
        for path in sorted(self._former_files(), key=lambda former: former.name != CONFIG_NAME):
            path.unlink()
        _sync_directory(self.directory)
        count = len(self.shards)
        weight_map = {}
        for number, names in enumerate(self.shards, start=1):
            final = SINGLE_NAME if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"
            self._partial(f"{number:05}").rename(self.directory / final)
            weight_map.update(dict.fromkeys(names, final))
        if count > 1:
            index = {"metadata": {"total_size": self.total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
            self._write_text(INDEX_NAME, json.dumps(index, indent=2) + "\n")
        self._write_text(CONFIG_NAME, self.config_text)
        self.is_finished = True

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        else:
            self.held = {}
            self._remove_partial()

    def _write_shard(self) -> None:
        # Whole cache lines first, as kernels read mapped weights by the line; then wide elements first, as every reader
        # maps them: so each tensor lies on a multiple of its own element size.
        ordered = dict(
            sorted(self.held.items(), key=lambda item: (item[1].nbytes % LINE_BYTES != 0, -item[1].dtype.itemsize))
        )
        with self._partial(f"{len(self.shards) + 1:05}").open("xb") as file:
            file.write(build_header(ordered))
            for tensor in ordered.values():
                flat = tensor.detach().to("cpu").contiguous().view(-1)
                if flat.numel():
                    np_bytes: np.ndarray = flat.view(torch.uint8).numpy()
                    file.write(np_bytes.data)
            file.flush()
            os.fsync(file.fileno())
        self.shards.append(list(ordered))
        self.held, self.held_bytes = {}, 0

    def _write_text(self, name: str, text: str) -> None:
        # The shards' new names must be on the disk before the file that vouches for them.
        _sync_directory(self.directory)
        partial = self._partial(name)
        with partial.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self.directory / name)
        _sync_directory(self.directory)

    def _partial(self, name: str) -> Path:
        return self.directory / PARTIAL_NAMES.replace("*", name)

    def _remove_partial(self) -> None:
        for path in self.directory.glob(PARTIAL_NAMES):
            path.unlink()

    def _former_files(self) -> list[Path]:
        return [
            path
            for path in sorted(self.directory.iterdir())
            if path.name in (CONFIG_NAME, INDEX_NAME, SINGLE_NAME) or NUMBERED_SHARD.fullmatch(path.name)
        ]


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
