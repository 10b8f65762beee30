"""From what a user calls a model to the place where its weights lie."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple

from seamount.checkpoint.checkpoint_files import PICKLE_SUFFIXES
from seamount.checkpoint.embedded import embedded_path
from seamount.checkpoint.hub import fetch_from_hub
from seamount.errors import CheckpointError, ModelNotFound, UnsafeFile

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


class Located(NamedTuple):
    """A checkpoint on this machine: a directory in Hugging Face layout, or a GGUF file."""

    path: Path
    kind: Literal["directory", "gguf"]


def locate(model: str | Path) -> Located:
    """Where the checkpoint `model` lies: "embedded", a directory, a .gguf file, or a hub id, which is fetched.

    Errors: ModelNotFound, UnsafeFile for a pickle, CheckpointError for a file of another kind, MissingDependency.
    """
    if model == "embedded":
        return _located(embedded_path())
    try:
        path = Path(model).expanduser()
        exists = path.exists()
    except (OSError, RuntimeError) as error:
        raise ModelNotFound(f"{str(model)!r} cannot be a model's name or path: {error}") from error
    # An empty name is the current directory to pathlib, which nobody means by it.
    if exists and model != "":
        return _located(path)
    if isinstance(model, str) and HUB_ID.fullmatch(model) and not model.endswith(".gguf"):
        return _located(fetch_from_hub(model))
    raise ModelNotFound(
        f"no model {str(model)!r}: it is no directory and no file here, and not of the form owner/name for the hub; "
        'give a directory, a .gguf file, a hub id, or "embedded"'
    )


def _located(path: Path) -> Located:
    if path.is_dir():
        return Located(path, "directory")
    if path.suffix == ".gguf":
        return Located(path, "gguf")
    if path.suffix in PICKLE_SUFFIXES:
        raise UnsafeFile(
            f"{path} may be a pickle, which can run code when read; give a directory with .safetensors files"
        )
    raise CheckpointError(
        f"{path} is a single file that is no .gguf; give the directory that holds config.json and weights"
    )
