"""From any checkpoint to a packed one, in one pass that never holds more than a shard and a tensor."""

from __future__ import annotations

from pathlib import Path

import torch

from seamount.checkpoint import CheckpointWriter
from seamount.errors import ConfigError
from seamount.models.loading import Progress, checked_dtype, counting
from seamount.models.names import FLOAT32
from seamount.models.opened import opened, unpacked
from seamount.models.packed import stored_names
from seamount.models.packing import checked_format, pack_checkpoint, quantisation_config, read_into

SHARD_BYTES = 2_000_000_000  # held in memory until it is full


def convert(
    model: str | Path,
    directory: str | Path,
    *,
    to: str,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Pack a checkpoint's weights as "int4" or "int8" and write them, with config and tokenizer, into a directory.

    A directory appears as a checkpoint only when it is whole; after an interruption, convert again.
    Errors: as `load`; ConfigError for a checkpoint that is packed already, CheckpointError for a directory that holds
    one, unless `overwrite`.
    Cost: reads every tensor once, a tied embedding twice; memory one shard, and a tensor or one of a stack's members.
    """
    format = checked_format(to)
    with opened(model) as checkpoint:
        if checkpoint.format is not None:
            raise ConfigError(
                f"{checkpoint.located.path} holds {checkpoint.format} weights already; convert its source"
            )
        if Path(directory).resolve() == checkpoint.located.path.resolve():
            raise ConfigError(f"{directory} is the checkpoint that is read; choose another directory")
        dtype, tokenizer = checked_dtype(checkpoint.dtype), checkpoint.tokenizer()
        config = {name: value for name, value in checkpoint.built.config.items() if name != "dtype"}
        config |= {"torch_dtype": str(dtype).removeprefix("torch."), "quantization_config": quantisation_config(format)}
        count, replaced = counting(checkpoint, progress), []
        with CheckpointWriter(directory, config, shard_bytes=shard_bytes, overwrite=overwrite) as writer:
            for packed, weight in pack_checkpoint(checkpoint, format, count):
                replaced.append(packed)
                for name, tensor in zip(stored_names(packed.name), (weight.blocks, weight.scale), strict=True):
                    writer.add(name, tensor)
            slots = [slot for slot in unpacked(replaced, checkpoint.slots) if not slot.is_copy]
            for name, parameter in checkpoint.built.named_parameters():
                own = [slot for slot in slots if slot.target == name]
                if own:
                    kept = torch.float32 if name.endswith(FLOAT32) else dtype
                    tensor = torch.empty(parameter.shape, dtype=kept)
                    for slot in own:
                        read_into(slot, slot.view(tensor), checkpoint.source)
                        count(slot)
                    writer.add(name, tensor)
            if tokenizer is not None:
                tokenizer.save(directory)
