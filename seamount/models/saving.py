"""From a model to a checkpoint in Hugging Face layout: the slots of `load`, read the other way."""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from seamount.checkpoint import CheckpointWriter
from seamount.errors import ConfigError
from seamount.kernels.packing import FORMATS
from seamount.models.model import Model
from seamount.models.names import hugging_face
from seamount.models.packed import packed_weights, stored_names


def save(model: Model, directory: str | Path, *, overwrite: bool = False) -> None:
    """Write weights, config.json and tokenizer so that `load`, and for unpacked weights other systems, read them again.

    Weights are written in the model's dtype; what was FP8 or GGUF on loading is not encoded again, and config.json
    then says so by having no quantization_config. Packed weights are written packed, under our own names.
    Errors: CheckpointError for a directory that holds a checkpoint, unless `overwrite`; ConfigError for a model with a
    GGUF's own weights.
    """
    formats = {weight.format for _, weight in packed_weights(model)}
    is_packed = bool(formats)
    if not formats <= set(FORMATS):
        raise ConfigError(
            "this model holds a GGUF's weights as they are, for which packed checkpoints have no form: keep the .gguf "
            "file, or load it without quantize = 'gguf'"
        )
    left_out = ("dtype",) if is_packed else ("quantization_config", "dtype")
    config = {name: value for name, value in model.config.items() if name not in left_out}
    config["torch_dtype"] = str(model.dtype).removeprefix("torch.")
    with CheckpointWriter(directory, config, overwrite=overwrite) as writer:
        for name, tensor in _packed_tensors(model) if is_packed else _published_tensors(model):
            writer.add(name, tensor.detach())
        if model.tokenizer is not None:
            model.tokenizer.save(directory)


def _published_tensors(model: Model) -> Iterator[tuple[str, Tensor]]:
    parameters = dict(model.named_parameters())
    for slot in hugging_face(model.spec):
        if slot.is_saved:
            yield slot.source, slot.view(parameters[slot.target])


def _packed_tensors(model: Model) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    for name, weight in packed_weights(model):
        yield from zip(stored_names(name), (weight.blocks, weight.scale), strict=True)
