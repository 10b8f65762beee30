"""Packing a model while it is read: one parameter, or one expert of a stack, at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seamount.checkpoint import TensorSource
from seamount.errors import ConfigError, CorruptFile, TensorMismatch
from seamount.kernels import packing
from seamount.kernels.packing import Format, Packed
from seamount.models.names import Slot
from seamount.models.opened import OpenedModel
from seamount.models.packed import VERSION, PackedSlot, packed_slots, stored_names

Read = Callable[[Slot], None]  # called after each tensor, for progress

METHOD = "seamount"


def quantisation_config(format: Format) -> dict[str, Any]:
    """What config.json says of a packed checkpoint."""
    return {"quant_method": METHOD, "format": format, "version": VERSION}


def checked_format(format: str) -> Format:
    """The format of that name.

    Errors: ConfigError naming what is allowed.
    """
    for known in packing.FORMATS:
        if format == known:
            return known
    raise ConfigError(f"quantize = {format!r} is not one of {', '.join(packing.FORMATS)}")


def pack_checkpoint(checkpoint: OpenedModel, format: Format, read: Read) -> Iterator[tuple[PackedSlot, Packed]]:
    """Every weight of an unpacked checkpoint that is to be packed, one parameter after the other.

    Errors: TensorMismatch where a second copy of a packed tensor differs from the first, CheckpointError for numbers
    that are not finite.
    """
    parameters, source = dict(checkpoint.built.named_parameters()), checkpoint.source
    wanted: dict[str, list[PackedSlot]] = {}
    for packed in packed_slots(checkpoint.built.spec, parameters, format):
        wanted.setdefault(packed.parameter, []).append(packed)
    for name, packed_of_one in wanted.items():
        slots = [slot for slot in checkpoint.slots if slot.target == name and not slot.is_copy]
        yield from pack_parameter(parameters[name], slots, packed_of_one, source, read)
        present = set(source.names())
        for slot in checkpoint.slots:
            if slot.target == name and slot.is_copy and slot.source in present:
                first = source.read(slots[0].source)
                if not torch.equal(source.read(slot.source, first.dtype), first):
                    raise TensorMismatch(f"{slot.source} should be a copy of {slots[0].source}, and differs from it")


def stored_weights(checkpoint: OpenedModel) -> Iterator[tuple[PackedSlot, Packed]]:
    """The packed weights of a packed checkpoint, as views of its files.

    Errors: CheckpointError for a dtype that does not fit, CorruptFile for a scale that is not finite.
    Cost: reads the scales, 4 bytes a row; the codes are read when they are used.
    """
    parameters, source = dict(checkpoint.built.named_parameters()), checkpoint.source
    for slot in checkpoint.packed:
        shape = tuple(slot.view(parameters[slot.parameter]).shape)
        blocks, scale = (source.read(name) for name in stored_names(slot.name))
        weight = packing.packed(slot.format, shape, blocks, scale)
        # numpy's test: torch would wake its threads for each of these small ones.
        if not np.isfinite(scale.numpy()).all():
            raise CorruptFile(f"{slot.name}: a scale is not a finite number; convert or fetch the checkpoint again")
        yield slot, weight


@torch.no_grad()
def pack_parameter(
    parameter: Tensor,
    slots: list[Slot],
    wanted: list[PackedSlot],
    source: TensorSource,
    read: Read,
) -> Iterator[tuple[PackedSlot, Packed]]:
    """The packed weights of one parameter, of which `parameter` is the shape on the meta device.

    A stack is packed member by member, and read so where the checkpoint stores its members apart.
    Cost: memory for the packed weights and one member, or else the parameter, in the checkpoint's dtype.
    """
    packed = {slot.name: packing.empty(slot.format, tuple(slot.view(parameter).shape)) for slot in wanted}

    def pack(weight: Tensor, member: int | None) -> None:
        for slot in wanted:
            place = packed[slot.name] if member is None else packed[slot.name][member]
            packing.pack_into(slot.view(weight), place)

    if parameter.ndim == 2:
        pack(_assembled(parameter.shape, 0, parameter, slots, source, read), None)
    else:
        size = parameter[0].numel()
        own: dict[int | None, list[Slot]] = {}
        for slot in slots:
            own.setdefault(_member(slot.view(parameter), size), []).append(slot)
        if None in own:
            weight = _assembled(parameter.shape, 0, parameter, slots, source, read)
        for member in range(parameter.shape[0]):
            if None in own:
                pack(weight[member], member)
            else:
                pack(_assembled(parameter.shape[1:], member * size, parameter, own[member], source, read), member)
    yield from ((slot, packed[slot.name]) for slot in wanted)


def _member(view: Tensor, size: int) -> int | None:
    """Which member of a stack a view lies in; None if in several."""
    last = view.storage_offset() + sum((n - 1) * step for n, step in zip(view.shape, view.stride(), strict=True))
    return view.storage_offset() // size if view.storage_offset() // size == last // size else None


def _assembled(
    shape: torch.Size, offset: int, parameter: Tensor, slots: list[Slot], source: TensorSource, read: Read
) -> Tensor:
    """A parameter, or the part of it that begins at element `offset`, filled from the checkpoint's tensors."""
    weight = torch.empty(shape, dtype=source.dtype(slots[0].source))
    for slot in slots:
        view = slot.view(parameter)
        place = weight.as_strided(view.shape, view.stride(), view.storage_offset() - offset)
        read_into(slot, place, source)
        read(slot)
    return weight


def read_into(slot: Slot, place: Tensor, source: TensorSource) -> None:
    """Fill the place that a slot's view gave."""
    if slot.is_flattened or place.device.type != "cpu":
        place.copy_(source.read(slot.source).reshape(place.shape))
    else:
        source.read_into(slot.source, place)
