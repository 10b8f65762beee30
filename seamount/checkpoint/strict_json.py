"""JSON from strangers: bounded in size, an object at the top, and no key with two meanings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from seamount.errors import CheckpointError, CorruptFile

MAX_JSON_BYTES = 100_000_000


def parse_json_object(data: bytes, origin: str) -> dict[str, Any]:
    """The JSON object in `data`; `origin` names it in errors.

    Errors: CorruptFile when it is not UTF-8, not JSON, not an object, nested beyond reason, or gives a key two values.
    """
    try:
        parsed = json.loads(data.decode("utf-8"), object_pairs_hook=_without_contradiction)
    except RecursionError as error:
        raise CorruptFile(f"{origin} is nested too deeply to be a real file") from error
    except ValueError as error:
        raise CorruptFile(f"{origin} is not valid JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise CorruptFile(f"{origin} holds a {type(parsed).__name__} where a JSON object is needed")
    return parsed


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file at `path`, at most MAX_JSON_BYTES long."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # read() sets aside what it is asked for, so it is asked for no more than there is.
            data = file.read(size) if size <= MAX_JSON_BYTES else None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    if data is None:
        raise CorruptFile(f"{path} is longer than {MAX_JSON_BYTES} bytes, the most that is read of a JSON file")
    return parse_json_object(data, str(path))


def _without_contradiction(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        # dict() kept the last of each; an earlier one that differs means that two readers could disagree.
        for key, value in pairs:
            if result[key] != value or type(result[key]) is not type(value):
                raise ValueError(f"the key {key!r} is given twice, with different values")
    return result
