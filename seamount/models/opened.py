"""An opened checkpoint: its files, its shape as a model without memory, and which tensor belongs where, all checked."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from seamount.checkpoint import GGUFFile, Located, TensorSource, locate, open_tensors, read_config
from seamount.errors import ModelNotFound, TensorMismatch
from seamount.kernels.packing import Format, packed_shapes
from seamount.models import presets
from seamount.models.families import family_config
from seamount.models.families.base import PackedConfig
from seamount.models.gguf_config import config_from_gguf
from seamount.models.gguf_names import gguf
from seamount.models.model import Model
from seamount.models.names import Slot, hugging_face
from seamount.models.packed import PackedSlot, packed_slots, stored_names
from seamount.models.spec import ModelSpec
from seamount.tokenizer import Tokenizer

# Old Llama checkpoints store the rotary frequencies, GGUF files Llama 3's divisors: both follow from the config.
_DERIVED = re.compile(r"(model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq|rope_freqs\.weight)")
_log = logging.getLogger("seamount")


@dataclass(frozen=True)
class OpenedModel:
    """A checkpoint whose names and shapes agree with its config.

    `built` is on the meta device. `slots` are the tensors that are parameters, `packed` those that come packed, of
    which `format` is the format; None and nothing where the checkpoint is not packed.
    """

    located: Located
    source: TensorSource
    built: Model
    slots: list[Slot]
    packed: list[PackedSlot]
    format: Format | None

    @property
    def dtype(self) -> Any:
        """The dtype that the checkpoint is meant for: the config's, or else that of its embedding."""
        config = self.built.config
        return config.get("dtype") or config.get("torch_dtype") or self.source.dtype(self.slots[0].source)

    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer, if the checkpoint has one."""
        if isinstance(self.source, GGUFFile):
            known = "tokenizer.ggml.tokens" in self.source.metadata
            return Tokenizer.from_gguf(self.source.metadata) if known else None
        path = self.located.path
        return Tokenizer.from_directory(path) if (path / "tokenizer.json").exists() else None


@contextmanager
def opened(model: str | Path) -> Iterator[OpenedModel]:
    """Open what `locate` understands; tensors already read stay valid when it is closed.

    Errors: ModelNotFound, ConfigError, CheckpointError (TensorMismatch lists every tensor at fault).
    """
    located = _locate(model)
    with open_tensors(located) as source:
        config = read_model_config(located, source)
        family = family_config(config, source=str(located.path))
        spec, quantisation = family.spec(), family.quantization_config
        format = quantisation.format if isinstance(quantisation, PackedConfig) else None
        if not isinstance(source, GGUFFile) and format is None:
            config, spec = _without_absent_mtp(config, spec, source)
        with torch.device("meta"):
            built = Model(spec, config)
        parameters, packed = dict(built.named_parameters()), []
        if format is not None:
            packed = list(packed_slots(spec, parameters, format))
            slots = unpacked(packed, [Slot(name, name) for name in parameters])
        elif isinstance(source, GGUFFile):
            slots = list(gguf(spec, set(source.names())))
        else:
            slots = list(hugging_face(spec))
        checkpoint = OpenedModel(located, source, built, slots, packed, format)
        _check(checkpoint)
        yield checkpoint


def unpacked(packed: list[PackedSlot], slots: list[Slot]) -> list[Slot]:
    """Those of the slots whose parameter no packed weight replaces."""
    replaced = {slot.parameter for slot in packed if not slot.is_beside}
    return [slot for slot in slots if slot.target not in replaced]


def load_spec(model: str | Path) -> ModelSpec:
    """The shape alone, without a weight being read; also of a preset such as "deepseek-v3".

    Errors: as `load`, as far as the config goes.
    """
    if model in presets.names():
        return family_config(presets.config(str(model)), source=f"the preset {model}").spec()
    located = locate(model)
    if located.kind == "directory":
        return family_config(read_config(located), source=str(located.path)).spec()
    with open_tensors(located) as source:
        return family_config(read_model_config(located, source), source=str(located.path)).spec()


def read_model_config(located: Located, source: TensorSource) -> dict[str, Any]:
    """The config.json of a directory, or what a GGUF's metadata say in its place."""
    return config_from_gguf(source) if isinstance(source, GGUFFile) else read_config(located)


def _locate(model: str | Path) -> Located:
    try:
        return locate(model)
    except ModelNotFound:
        if model in presets.names():
            raise ModelNotFound(
                f"{model!r} is a preset: a shape without weights. `seamount init {model} DIRECTORY` writes random "
                "ones; published ones are loaded from a directory or a hub id"
            ) from None
        raise


def _without_absent_mtp(
    config: dict[str, Any], spec: ModelSpec, source: TensorSource
) -> tuple[dict[str, Any], ModelSpec]:
    """Config and shape without the MTP layers that the config counts and the checkpoint leaves out, as many do."""
    first = f"model.layers.{len(spec.layers)}."
    if not spec.mtp_layers or any(name.startswith(first) for name in source.names()):
        return config, spec
    _log.warning(
        "config.json counts %d MTP layers and the checkpoint holds none: loaded without them", len(spec.mtp_layers)
    )
    config = config | {"num_nextn_predict_layers": 0}
    return config, family_config(config, source="config.json").spec()


def _check(checkpoint: OpenedModel) -> None:
    """Compare names and shapes, all of them, before anything is read."""
    source, parameters = checkpoint.source, dict(checkpoint.built.named_parameters())
    wanted: list[tuple[str, tuple[int, ...], bool]] = []
    for slot in checkpoint.slots:
        wanted.append((slot.source, slot.shape(parameters[slot.target]), slot.is_copy))
    for packed in checkpoint.packed:
        shapes = packed_shapes(packed.format, tuple(packed.view(parameters[packed.parameter]).shape))
        wanted += [(name, shape, False) for name, shape in zip(stored_names(packed.name), shapes, strict=True)]
    stored, faults = set(source.names()), []
    for name, shape, is_copy in wanted:
        if name not in stored:
            if not is_copy:
                faults.append(f"missing: {name} {list(shape)}")
        elif source.shape(name) != shape:
            faults.append(f"wrong shape: {name} is {list(source.shape(name))}, not {list(shape)}")
        stored.discard(name)
    faults += [f"surplus: {name}" for name in sorted(stored) if not _DERIVED.fullmatch(name)]
    if faults:
        lines = "\n  ".join(faults)
        where = checkpoint.located.path
        raise TensorMismatch(f"{where} does not hold the tensors that its config describes:\n  {lines}")
