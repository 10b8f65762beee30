"""Which files of a directory make up a checkpoint, and that none of them leads out of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from seamount.checkpoint.strict_json import read_json_object
from seamount.errors import CheckpointError, CorruptFile, ModelNotFound, UnsafeFile

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
NUMBERED_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.safetensors")


def contained_file(directory: Path, name: str) -> Path:
    """The file `name` directly inside `directory`.

    A symbolic link may point to another file of the directory or, from a snapshot of the hub's cache
    (`<repository>/snapshots/<revision>/`), to `<repository>/blobs/`, where that cache keeps the contents.
    Errors: UnsafeFile when the name is no plain file name or the link leads elsewhere.
    """
    if name in ("", ".", "..") or any(character in name for character in "/\\:\0"):
        raise UnsafeFile(f"{name!r}, named in {directory}, is not a plain file name; refused unread")
    home = directory.resolve()
    allowed = [home]
    if home.parent.name == "snapshots":
        allowed.append(home.parent.parent / "blobs")
    try:
        target = (home / name).resolve()
    except (OSError, RuntimeError) as error:
        raise UnsafeFile(f"{name!r} in {directory} is a link that leads nowhere: {error}") from error
    if target.parent not in allowed:
        raise UnsafeFile(
            f"{name!r} in {directory} is a link out of the directory, to {target}; put the file itself there"
        )
    return home / name


def read_config_file(directory: Path) -> dict[str, Any]:
    """The contents of `config.json`.

    Errors: CheckpointError when there is none, CorruptFile when it is no JSON object.
    """
    path = contained_file(directory, CONFIG_NAME)
    if not path.is_file():
        raise CheckpointError(f"{directory} holds no {CONFIG_NAME}; it is not a complete checkpoint")
    return read_json_object(path)


def read_weight_map(directory: Path) -> dict[str, str] | None:
    """The index's map from tensor to file name, or None where the directory has no index.

    Errors: CorruptFile when the index is damaged, UnsafeFile when a name is no safetensors file of this directory.
    """
    path = contained_file(directory, INDEX_NAME)
    if not path.is_file():
        return None
    weight_map = read_json_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CorruptFile(f"{path} has no weight_map that names tensors")
    for tensor, name in weight_map.items():
        if not isinstance(name, str):
            raise CorruptFile(f"{path}: {tensor!r} is mapped to {name!r}, which is no file name")
    for name in sorted(set(weight_map.values())):
        contained_file(directory, name)
        if not name.endswith(".safetensors"):
            raise UnsafeFile(f"{path} names {name!r}; only .safetensors files are read")
    return weight_map


def shard_paths(directory: Path, weight_map: dict[str, str] | None) -> list[Path]:
    """The files that hold the weights: the index's, or model.safetensors, or every *.safetensors.

    Errors: CheckpointError when some or all are missing, UnsafeFile when there are only pickles.
    """
    if weight_map is not None:
        names = sorted(set(weight_map.values()))
    elif (directory / SINGLE_NAME).exists():
        names = [SINGLE_NAME]
    else:
        names = sorted(path.name for path in directory.glob("*.safetensors"))
        if not names:
            raise _no_weights(directory)
        _check_numbering(directory, names)
    paths = [contained_file(directory, name) for name in names]
    absent = [path.name for path in paths if not path.is_file()]
    if absent:
        raise CheckpointError(
            f"{directory} lacks {', '.join(absent)}; the checkpoint was not fetched or written to the end"
        )
    return paths


def _check_numbering(directory: Path, names: list[str]) -> None:
    # A killed writer leaves shards without an index; their own names tell how many there should be.
    numbers: dict[tuple[str, int], set[int]] = {}
    for match in filter(None, map(NUMBERED_SHARD.fullmatch, names)):
        numbers.setdefault((match["stem"], int(match["total"])), set()).add(int(match["number"]))
    for (stem, total), present in numbers.items():
        if present != set(range(1, len(present) + 1)) or len(present) != total:
            raise CheckpointError(
                f"{directory} holds {len(present)} of the {total} files {stem}-*-of-{total:05}.safetensors and no "
                f"{INDEX_NAME}; the checkpoint was not fetched or written to the end"
            )


def _no_weights(directory: Path) -> Exception:
    present = sorted(path for path in directory.iterdir() if path.is_file())
    pickles = [path.name for path in present if path.suffix in PICKLE_SUFFIXES]
    if pickles:
        return UnsafeFile(
            f"{directory} holds its weights only as pickles ({', '.join(pickles[:4])}), which can run code when read; "
            "convert them to safetensors in a place you trust, or fetch a revision that has .safetensors files"
        )
    ggufs = [path.name for path in present if path.suffix == ".gguf"]
    if ggufs:
        return CheckpointError(
            f"{directory} holds no .safetensors files; give one of its .gguf files: {', '.join(ggufs)}"
        )
    return ModelNotFound(f"{directory} holds no .safetensors files, so no weights")
