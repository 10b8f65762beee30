"""Random checkpoints of any shape, written tensor by tensor, so that the shape may be larger than memory."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seamount.checkpoint import CheckpointWriter, encode_fp8
from seamount.errors import ConfigError
from seamount.models import presets
from seamount.models.families import family_config
from seamount.models.families.base import HARMLESS
from seamount.models.loading import Progress, checked_dtype
from seamount.models.model import Model
from seamount.models.names import FLOAT32, hugging_face

_BLOCK_ELEMENTS = 1 << 24
_NOT_FP8 = ("embed_tokens.weight", "lm_head.weight", "shared_head.head.weight", "mlp.gate.weight", "eh_proj.weight")


def initialise(
    preset: str | Mapping[str, Any],
    directory: str | Path,
    *,
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a checkpoint with normal weights of the config's `initializer_range`, norms of 1, biases of 0.

    Each tensor's numbers depend on the seed and its name alone. With a `quantization_config` it is written in FP8.
    Errors: ModelNotFound for an unknown preset, ConfigError for an unknown or unusable field, CheckpointError for a
    directory that holds a checkpoint.
    """
    named = isinstance(preset, str)
    source = f"the preset {preset}" if named else "the config"
    config = dict(presets.config(preset) if isinstance(preset, str) else preset)
    known = set(type(family_config(config, source=source)).model_fields) | HARMLESS | set(config)
    for name in overrides or {}:
        if name not in known:
            raise ConfigError(f"{name!r} is no field of {source}; known are {', '.join(sorted(known - HARMLESS))}")
    config |= overrides or {}
    checked = family_config(config, source=source)
    spec, quantised = checked.spec(), checked.quantization_config is not None
    dtype = checked_dtype(config.setdefault("torch_dtype", "bfloat16"))
    with torch.device("meta"):
        parameters = dict(Model(spec, config).named_parameters())
    slots = [slot for slot in hugging_face(spec) if slot.is_saved]
    total, done = sum(slot.view(parameters[slot.target]).numel() for slot in slots), 0
    canonical = {slot.target: slot.source for slot in slots if not slot.is_copy}
    with CheckpointWriter(directory, config) as writer:
        for slot in slots:
            shape = slot.shape(parameters[slot.target])
            name = canonical[slot.target] if slot.is_copy else slot.source
            kept = torch.float32 if slot.target.endswith(FLOAT32) else dtype
            tensor = _random(name, shape, seed, spec.initializer_range, kept)
            for written, part in _encoded(slot.source, tensor, quantised=quantised):
                writer.add(written, part)
            done += tensor.numel()
            if progress:
                progress(done * dtype.itemsize, total * dtype.itemsize)


def _random(name: str, shape: tuple[int, ...], seed: int, deviation: float, dtype: torch.dtype) -> Tensor:
    if len(shape) == 1:
        return torch.zeros(shape, dtype=dtype) if name.endswith("bias") else torch.ones(shape, dtype=dtype)
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    tensor = torch.empty(shape, dtype=dtype)
    for block in tensor.view(-1).split(_BLOCK_ELEMENTS):
        block.copy_(torch.randn(block.shape, generator=generator) * deviation)
    return tensor


def _encoded(name: str, tensor: Tensor, *, quantised: bool) -> Iterator[tuple[str, Tensor]]:
    if not quantised or tensor.ndim != 2 or name.endswith(_NOT_FP8):
        yield name, tensor
        return
    code, scale_inv = encode_fp8(tensor)
    yield name, code
    yield f"{name}_scale_inv", scale_inv
