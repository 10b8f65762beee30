"""A directory in Hugging Face layout as a source of tensors, FP8 matrices decoded."""

from __future__ import annotations

from pathlib import Path

import torch

from seamount.checkpoint.checkpoint_files import read_weight_map, shard_paths
from seamount.checkpoint.fp8 import BLOCK, check_fp8_scale, decode_fp8_rows
from seamount.checkpoint.mapped_file import MappedFile
from seamount.checkpoint.safetensors_header import StoredTensor, parse_header
from seamount.checkpoint.tensor_source import TensorSource
from seamount.errors import CheckpointError, TensorMismatch

SCALE_SUFFIX = "_scale_inv"
FP8 = torch.float8_e4m3fn


class SafetensorsDirectory(TensorSource):
    """All shards of one checkpoint, memory-mapped; `X.weight` in FP8 and `X.weight_scale_inv` appear as one tensor.

    Errors: UnsafeFile, CorruptFile, TensorMismatch or CheckpointError, before any tensor is read.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory
        weight_map = read_weight_map(directory)
        self._tensors: dict[str, tuple[MappedFile, StoredTensor]] = {}
        self._scales: set[str] = set()
        problems = []
        for path in shard_paths(directory, weight_map):
            mapped = MappedFile(path)
            for name, tensor in parse_header(mapped).items():
                if name in self._tensors:
                    problems.append(f"{name} is in {self._tensors[name][0].path.name} and in {path.name}")
                elif weight_map is not None and weight_map.get(name) != path.name:
                    problems.append(f"{name} is in {path.name}, the index says {weight_map.get(name)}")
                self._tensors.setdefault(name, (mapped, tensor))
        for name in weight_map or ():
            if name not in self._tensors:
                problems.append(f"{name} is in the index but in no file")
        if problems:
            raise TensorMismatch(f"{directory}: index and files disagree:\n  " + "\n  ".join(problems))
        self._pair_scales()

    def names(self) -> list[str]:
        """Every logical tensor, in the order of the files."""
        return [name for name in self._tensors if name not in self._scales]

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape."""
        return self._stored(name)[1].shape

    def dtype(self, name: str) -> torch.dtype:
        """The stored dtype; bfloat16 for FP8, in which these models are run."""
        dtype = self._stored(name)[1].dtype
        return torch.bfloat16 if dtype == FP8 else dtype

    def read(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The tensor in `dtype` or its own; a view of the file where nothing is to be converted."""
        mapped, stored = self._stored(name)
        dtype = dtype or self.dtype(name)
        if dtype == stored.dtype and stored.dtype != FP8:
            return mapped.typed(stored.offset, stored.dtype, stored.shape)
        out = torch.empty(stored.shape, dtype=dtype)
        self.read_into(name, out)
        return out

    def read_into(self, name: str, out: torch.Tensor) -> None:
        """Decode into `out`, which has the tensor's shape."""
        mapped, stored = self._stored(name)
        assert tuple(out.shape) == stored.shape, f"{name}: shape {stored.shape} read into {tuple(out.shape)}"
        if stored.dtype == FP8:
            assert out.dtype != FP8, f"{name}: FP8 numbers mean nothing without their multipliers"
            self._decode_fp8(name, out)
        elif out.is_contiguous():
            mapped.copy_into(stored.offset, stored.dtype, out)
        else:
            out.copy_(mapped.typed(stored.offset, stored.dtype, stored.shape))
            mapped.release(stored.offset, stored.nbytes)

    def close(self) -> None:
        """Let go of the files; tensors already read stay valid."""
        self._tensors = {}
        self._scales = set()

    def _decode_fp8(self, name: str, out: torch.Tensor) -> None:
        mapped, stored = self._tensors[name]
        scale_mapped, scale = self._tensors[name + SCALE_SUFFIX]
        weight_FD = mapped.typed(stored.offset, stored.dtype, stored.shape)
        scale_inv_GG = scale_mapped.typed(scale.offset, scale.dtype, scale.shape)
        nbytes = BLOCK * stored.shape[1]
        for group in range(scale.shape[0]):
            decode_fp8_rows(weight_FD, scale_inv_GG, out, group)
            mapped.release(stored.offset + group * nbytes, min(nbytes, stored.nbytes - group * nbytes))

    def _pair_scales(self) -> None:
        self._scales = {name for name in self._tensors if name.endswith(SCALE_SUFFIX)}
        problems = []
        for name in sorted(self._scales):
            weight = self._tensors.get(name.removesuffix(SCALE_SUFFIX))
            if weight is None or weight[1].dtype != FP8:
                problems.append(f"{name} belongs to no FP8 weight")
                continue
            scale = self._tensors[name][1]
            try:
                check_fp8_scale(name.removesuffix(SCALE_SUFFIX), weight[1].shape, scale.dtype, scale.shape)
            except CheckpointError as error:
                problems.append(str(error))
        for name, (_, stored) in self._tensors.items():
            if stored.dtype == FP8 and name + SCALE_SUFFIX not in self._scales:
                problems.append(f"{name} is FP8 without {name}{SCALE_SUFFIX}")
        if problems:
            raise TensorMismatch(
                f"{self.path}: FP8 weights and multipliers do not pair up:\n  " + "\n  ".join(problems)
            )

    def _stored(self, name: str) -> tuple[MappedFile, StoredTensor]:
        if name not in self._tensors or name in self._scales:
            raise CheckpointError(f"{self.path} has no tensor {name!r} (or it was closed)")
        return self._tensors[name]
