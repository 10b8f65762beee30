"""From a checkpoint to a model: each tensor straight into its place, packed on the way, or mapped as it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from seamount.errors import ConfigError, TensorMismatch
from seamount.kernels.cpu.target import TARGET
from seamount.kernels.packing import Format
from seamount.models.gguf_packing import BLOCKS, Blocks, can_take_all, taken_weights
from seamount.models.model import Model
from seamount.models.names import FLOAT32, Slot
from seamount.models.opened import OpenedModel, opened, unpacked
from seamount.models.packed import install
from seamount.models.packing import checked_format, pack_checkpoint, quantisation_config, read_into, stored_weights

Progress = Callable[[int, int], None]  # bytes read so far, bytes in all

_DTYPES: dict[object, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    model: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str = "cpu",
    quantize: str | None = None,
    progress: Progress | None = None,
) -> Model:
    """The model of a directory, a .gguf file, a hub id, or "embedded", with its weights and its tokenizer.

    `dtype` defaults to the config's, else to the stored one; for GGUF files, which are decoded, to bfloat16.
    `quantize`, "int4" or "int8", packs the weights while they are read; `dtype` is then that of all else. "gguf" takes
    a GGUF's Q4_0, Q4_1 and Q8_0 weights as they are, and packs its others as int8 (models/gguf_packing.py); "auto" does
    so where all are of these types and this processor has kernels for them, and else packs nothing. A checkpoint that
    `seamount convert` packed is used as it lies in its files, which are memory-mapped.
    Errors: ModelNotFound, ConfigError, CheckpointError (TensorMismatch lists every tensor at fault), TokenizerError.
    Cost: the model's own size in memory, plus a few per cent, or with `quantize` one tensor, while it is read. A packed
    checkpoint's pages are the system's file cache, filled when they are first used.
    """
    device = torch.device(device)
    with opened(model) as checkpoint:
        built, slots, counted = checkpoint.built, checkpoint.slots, counting(checkpoint, progress)
        format = _chosen_format(checkpoint, quantize, device)
        kept = checked_dtype(dtype or checkpoint.dtype)
        built.tokenizer = checkpoint.tokenizer()
        if checkpoint.format is not None:
            for packed, weight in stored_weights(checkpoint):
                install(built, packed.name, weight)
            _map(checkpoint, kept)
            return built.eval()
        if format is not None:
            if format == BLOCKS:
                weights = taken_weights(checkpoint, counted)
            else:
                weights = pack_checkpoint(checkpoint, format, counted)
                built.config["quantization_config"] = quantisation_config(format)
            replaced = []
            for packed, weight in weights:
                install(built, packed.name, weight)
                replaced.append(packed)
            slots = unpacked(replaced, slots)
        _materialise(built, kept, device)
        _fill(checkpoint, slots, counted)
    return built.eval()


def _chosen_format(checkpoint: OpenedModel, quantize: str | None, device: torch.device) -> Format | Blocks | None:
    format: Format | Blocks | None = checkpoint.format
    if quantize == "auto":
        # On vectors that are emulated, torch's products of unpacked weights are faster.
        is_fast = device.type == "cpu" and TARGET.path != "portable"
        format = BLOCKS if is_fast and can_take_all(checkpoint) else checkpoint.format
    elif quantize is not None:
        format = BLOCKS if quantize == BLOCKS else checked_format(quantize)
    if checkpoint.format not in (None, format):
        raise ConfigError(
            f"quantize = {quantize!r}: {checkpoint.located.path} holds {checkpoint.format} weights already; "
            "convert the checkpoint that it was made from"
        )
    if format is not None and device.type != "cpu":
        raise ConfigError(f"device {device}: packed weights run on the CPU alone; load an unpacked model for others")
    return format


def counting(checkpoint: OpenedModel, progress: Progress | None) -> Callable[[Slot], None]:
    """A callback for each tensor read, that tells `progress` how far it went."""
    source, done = checkpoint.source, 0
    total = source.nbytes

    def count(slot: Slot) -> None:
        nonlocal done
        done += math.prod(source.shape(slot.source)) * source.dtype(slot.source).itemsize
        if progress:
            progress(min(done, total), total)

    return count


def checked_dtype(dtype: object) -> torch.dtype:
    """The dtype of that name, or that dtype itself, if weights can be held in it.

    Errors: ConfigError naming what is allowed.
    """
    known = _DTYPES | {kind: kind for kind in _DTYPES.values()}
    if dtype not in known:
        raise ConfigError(f"dtype {dtype!r} is not one of {', '.join(map(str, _DTYPES))}")
    return known[dtype]


def _materialise(model: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Give every parameter of a model on the meta device memory of its own, not yet filled."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            empty = torch.empty(parameter.shape, dtype=_kept(name, dtype), device=device)
            setattr(module, name, nn.Parameter(empty, requires_grad=parameter.requires_grad))


def _map(checkpoint: OpenedModel, dtype: torch.dtype) -> None:
    """Let every parameter of a packed checkpoint be its place in the file, or a copy if another dtype is wanted."""
    parameters = dict(checkpoint.built.named_parameters())
    for slot in checkpoint.slots:
        path, _, name = slot.target.rpartition(".")
        tensor = checkpoint.source.read(slot.source, _kept(name, dtype))
        mapped = nn.Parameter(tensor, requires_grad=parameters[slot.target].requires_grad)
        setattr(checkpoint.built.get_submodule(path), name, mapped)


def _kept(name: str, dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if name in FLOAT32 else dtype


@torch.no_grad()
def _fill(checkpoint: OpenedModel, slots: list[Slot], read: Callable[[Slot], None]) -> None:
    source, parameters = checkpoint.source, dict(checkpoint.built.named_parameters())
    present = set(source.names())
    for slot in slots:
        if slot.source not in present:
            continue
        place = slot.view(parameters[slot.target])
        if slot.is_copy:
            _compare(slot, place, source.read(slot.source))
        else:
            read_into(slot, place, source)
        read(slot)


def _compare(slot: Slot, place: Tensor, stored: Tensor) -> None:
    if not torch.equal(stored.to(place.dtype).to(place.device), place):
        raise TensorMismatch(f"{slot.source} should be a copy of {slot.target}, and differs from it")
