"""Opening whatever was located: the config of a directory, and the tensors of either kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seamount.checkpoint.checkpoint_files import read_config_file
from seamount.checkpoint.gguf_file import GGUFFile
from seamount.checkpoint.locating import Located, locate
from seamount.checkpoint.safetensors_directory import SafetensorsDirectory
from seamount.checkpoint.tensor_source import TensorSource
from seamount.errors import CheckpointError


def open_tensors(model: Located | str | Path) -> TensorSource:
    """The tensors of a located checkpoint, or of anything that `locate` understands.

    Errors: every CheckpointError that the files deserve, before a tensor is read.
    """
    located = model if isinstance(model, Located) else locate(model)
    return SafetensorsDirectory(located.path) if located.kind == "directory" else GGUFFile(located.path)


def read_config(model: Located | str | Path) -> dict[str, Any]:
    """The config.json of a directory.

    Errors: CheckpointError for a GGUF file, whose config is made from GGUFFile.metadata instead.
    """
    located = model if isinstance(model, Located) else locate(model)
    if located.kind == "gguf":
        raise CheckpointError(f"{located.path} is a GGUF file and has no config.json; its metadata holds the config")
    return read_config_file(located.path)
