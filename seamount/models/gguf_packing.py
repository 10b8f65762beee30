"""A GGUF's Q4_0, Q4_1 and Q8_0 weights as they are: the file's integers and scales, in the kernels' order.

A weight is taken so if all tensors that make it up are of one of these types, and only their rows have to change places
(as the fused projections, the rotary pairs and the experts' stacks ask). What is to be packed and cannot be taken is
decoded and packed as int8.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections import Counter
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from seamount.checkpoint import GGUFFile
from seamount.errors import ConfigError
from seamount.kernels import packing
from seamount.kernels.cpu.group_filling import fill
from seamount.kernels.group_packing import GroupFormat
from seamount.kernels.packing import Packed
from seamount.models.names import Slot
from seamount.models.opened import OpenedModel
from seamount.models.packed import PackedSlot, packed_slots
from seamount.models.packing import Read, pack_parameter

Blocks = Literal["gguf"]
BLOCKS: Blocks = "gguf"  # what `quantize` is called that takes them
_log = logging.getLogger("seamount")
_FORMATS: dict[str, GroupFormat] = {"Q4_0": "q4_0", "Q4_1": "q4_1", "Q8_0": "q8_0"}


def can_take_all(checkpoint: OpenedModel) -> bool:
    """Whether this is a GGUF whose weights that are to be packed are all of the types that can be taken."""
    source = checkpoint.source
    if not isinstance(source, GGUFFile):
        return False
    wanted = {slot.parameter for slot in _wanted(checkpoint)}
    return {source.kind(slot.source).name for slot in checkpoint.slots if slot.target in wanted} <= set(_FORMATS)


def _wanted(checkpoint: OpenedModel) -> Iterator[PackedSlot]:
    return packed_slots(checkpoint.built.spec, dict(checkpoint.built.named_parameters()), "int8")


def taken_weights(checkpoint: OpenedModel, read: Read) -> Iterator[tuple[PackedSlot, Packed]]:
    """Every weight of a GGUF that is to be packed, one parameter after the other; logs how many of which format.

    Errors: ConfigError for another checkpoint than a GGUF, and for one in which no weight can be taken; CheckpointError
    for scales that are not finite.
    Cost: one read of the file, and memory for the packed weights; one parameter more for those that are packed anew.
    """
    source = checkpoint.source
    if not isinstance(source, GGUFFile):
        raise ConfigError(
            f"quantize = {BLOCKS!r}: {checkpoint.located.path} is no GGUF file, which alone has weights to use as they "
            f"are; choose {' or '.join(packing.FORMATS)}"
        )
    kinds = sorted({source.kind(slot.source).name for slot in checkpoint.slots})
    if not set(kinds) & set(_FORMATS):
        raise ConfigError(
            f"quantize = {BLOCKS!r}: {checkpoint.located.path} holds {', '.join(kinds)} and none of "
            f"{', '.join(_FORMATS)}, which can be used as they are; choose {' or '.join(packing.FORMATS)}"
        )
    parameters = dict(checkpoint.built.named_parameters())
    wanted: dict[str, list[PackedSlot]] = {}
    for packed in _wanted(checkpoint):
        wanted.setdefault(packed.parameter, []).append(packed)
    counts: Counter[str] = Counter()
    for name, packed_of_one in wanted.items():
        slots = [slot for slot in checkpoint.slots if slot.target == name and not slot.is_copy]
        for packed, weight in _parameter(parameters[name], slots, packed_of_one, source, read):
            counts[weight.format] += 1
            yield packed, weight
    told = ", ".join(f"{count} {format}" for format, count in sorted(counts.items()))
    _log.info("packed weights: %s; of these q4_0, q4_1 and q8_0 are the file's own, int8 were decoded and packed", told)


def _parameter(
    parameter: Tensor, slots: list[Slot], wanted: list[PackedSlot], source: GGUFFile, read: Read
) -> Iterator[tuple[PackedSlot, Packed]]:
    """One parameter's packed weights, each taken as it is where that can be."""
    # A number for each row tells where a view puts it; a view that does more with rows than to move them is seen too.
    row = torch.arange(math.prod(parameter.shape[:-1])).view(*parameter.shape[:-1], 1)
    kinds = {source.kind(slot.source) for slot in slots}
    are_rows = all(slot.view(row).shape[-1] == 1 for slot in slots)
    taken = [packed for packed in wanted if are_rows and packed.view(row).shape[-1] == 1]
    if len(kinds) > 1 or next(iter(kinds)).name not in _FORMATS:
        taken = []
    if taken:
        format = _FORMATS[next(iter(kinds)).name]
        # Which of the file's rows, those of all slots in one row, each row of the parameter is.
        stored_N = torch.empty(row.numel(), dtype=torch.int64)
        places = torch.cat([slot.view(row).flatten() for slot in slots])
        stored_N[places] = torch.arange(row.numel())
        raw = [source.blocks(slot.source) for slot in slots]
        for packed in taken:
            yield packed, _filled(format, raw, stored_N[packed.view(row).squeeze(-1)], parameter.shape[-1])
        for slot in slots:
            source.release(slot.source)
            read(slot)
    rest = [packed for packed in wanted if packed not in taken]
    if rest:
        yield from pack_parameter(parameter, slots, rest, source, read)


def _filled(format: GroupFormat, raw: list[Tensor], row_XN: Tensor, columns: int) -> Packed:
    """The packed weight (..., N, K) whose rows are these of the stored ones."""
    weight = packing.empty(format, (*row_XN.shape, columns))
    for place in itertools.product(*(range(size) for size in row_XN.shape[:-1])):
        fill(raw, row_XN[place] if place else row_XN, weight[place] if place else weight)
    return weight
