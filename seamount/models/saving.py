"""From a model to a checkpoint in Hugging Face layout: the slots of `load`, read the other way."""

from pathlib import Path

from seamount.checkpoint import CheckpointWriter
from seamount.models.model import Model
from seamount.models.names import hugging_face


def save(model: Model, directory: str | Path, *, overwrite: bool = False) -> None:
    """Write weights, config.json and tokenizer so that `load`, and other systems, read the same model again.

    Weights are written in the model's dtype; what was FP8 or GGUF on loading is not encoded again, and config.json
    then says so by having no quantization_config.
    Errors: CheckpointError for a directory that holds a checkpoint, unless `overwrite`.
    """
    config = {name: value for name, value in model.config.items() if name not in ("quantization_config", "dtype")}
    config["torch_dtype"] = str(model.dtype).removeprefix("torch.")
    parameters = dict(model.named_parameters())
    with CheckpointWriter(directory, config, overwrite=overwrite) as writer:
        for slot in hugging_face(model.spec):
            if slot.is_saved:
                writer.add(slot.source, slot.view(parameters[slot.target]).detach())
        if model.tokenizer is not None:
            model.tokenizer.save(directory)
