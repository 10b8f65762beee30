"""Random checkpoints of any shape, written tensor by tensor, so that the shape may be larger than memory."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seamount.checkpoint import CheckpointWriter, encode_fp8
from seamount.errors import ConfigError
from seamount.kernels.packing import Format, random_packed
from seamount.models import presets
from seamount.models.families import family_config
from seamount.models.families.base import HARMLESS, PackedConfig
from seamount.models.loading import Progress, checked_dtype
from seamount.models.model import Model
from seamount.models.names import FLOAT32, Slot, hugging_face
from seamount.models.opened import unpacked
from seamount.models.packed import packed_slots, stored_names
from seamount.models.packing import checked_format, quantisation_config
from seamount.models.spec import ModelSpec

SHARD_BYTES = 2_000_000_000  # held in memory until it is full
_BLOCK_ELEMENTS = 1 << 24
_NOT_FP8 = ("embed_tokens.weight", "lm_head.weight", "shared_head.head.weight", "mlp.gate.weight", "eh_proj.weight")


def initialise(
    preset: str | Mapping[str, Any],
    directory: str | Path,
    *,
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
    quantize: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a checkpoint with normal weights of the config's `initializer_range`, norms of 1, biases of 0.

    Each tensor's numbers depend on the seed and its name alone. With a `quantization_config` it is written in FP8; with
    `quantize`, "int4" or "int8", packed, from random codes rather than from numbers that are then packed.
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
    if quantize is not None:
        config["quantization_config"] = quantisation_config(checked_format(quantize))
    checked = family_config(config, source=source)
    spec, quantisation = checked.spec(), checked.quantization_config
    dtype = checked_dtype(config.setdefault("torch_dtype", "bfloat16"))
    with torch.device("meta"):
        parameters = dict(Model(spec, config).named_parameters())
    with CheckpointWriter(directory, config, shard_bytes=SHARD_BYTES) as writer:
        if isinstance(quantisation, PackedConfig):
            tensors = _packed(spec, parameters, quantisation.format, seed, dtype)
        else:
            tensors = _published(spec, parameters, seed, dtype, quantised=quantisation is not None)
        done, total = 0, sum(parameter.numel() for parameter in parameters.values())
        for count, name, tensor in tensors:
            writer.add(name, tensor)
            done += count
            if progress:
                progress(done * dtype.itemsize, total * dtype.itemsize)


Tensors = Iterator[tuple[int, str, Tensor]]  # parameters that the tensor stands for, its name, itself


def _published(
    spec: ModelSpec, parameters: Mapping[str, Tensor], seed: int, dtype: torch.dtype, *, quantised: bool
) -> Tensors:
    slots = [slot for slot in hugging_face(spec) if slot.is_saved]
    canonical = {slot.target: slot.source for slot in slots if not slot.is_copy}
    for slot in slots:
        shape = slot.shape(parameters[slot.target])
        name = canonical[slot.target] if slot.is_copy else slot.source
        tensor = _random(name, shape, seed, spec.initializer_range, _kept(slot.target, dtype))
        for number, (written, part) in enumerate(_encoded(slot.source, tensor, quantised=quantised)):
            yield 0 if number or slot.is_copy else tensor.numel(), written, part


def _packed(
    spec: ModelSpec, parameters: Mapping[str, Tensor], format: Format, seed: int, dtype: torch.dtype
) -> Tensors:
    packed = list(packed_slots(spec, parameters, format))
    for slot in packed:
        view, deviation = slot.view(parameters[slot.parameter]), spec.initializer_range
        weight = random_packed(tuple(view.shape), slot.format, _generator(slot.name, seed), deviation)
        blocks, scale = stored_names(slot.name)
        yield 0 if slot.is_beside else view.numel(), blocks, weight.blocks
        yield 0, scale, weight.scale
    for name in (own.target for own in unpacked(packed, [Slot(name, name) for name in parameters])):
        shape = tuple(parameters[name].shape)
        yield math.prod(shape), name, _random(name, shape, seed, spec.initializer_range, _kept(name, dtype))


def _kept(name: str, dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if name.endswith(FLOAT32) else dtype


def _random(name: str, shape: tuple[int, ...], seed: int, deviation: float, dtype: torch.dtype) -> Tensor:
    if len(shape) == 1:
        return torch.zeros(shape, dtype=dtype) if name.endswith("bias") else torch.ones(shape, dtype=dtype)
    generator = _generator(name, seed)
    tensor = torch.empty(shape, dtype=dtype)
    for block in tensor.view(-1).split(_BLOCK_ELEMENTS):
        block.copy_(torch.randn(block.shape, generator=generator) * deviation)
    return tensor


def _generator(name: str, seed: int) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _encoded(name: str, tensor: Tensor, *, quantised: bool) -> Iterator[tuple[str, Tensor]]:
    if not quantised or tensor.ndim != 2 or name.endswith(_NOT_FP8):
        yield name, tensor
        return
    code, scale_inv = encode_fp8(tensor)
    yield name, code
    yield f"{name}_scale_inv", scale_inv
