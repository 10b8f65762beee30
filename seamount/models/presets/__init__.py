"""Shapes of published models, and tiny ones of each family, as config.json files of this directory.

`deepseek-v3` is R1's shape too. The tiny ones are for tests and trials: random weights are all they are good for.
"""

import json
from pathlib import Path
from typing import Any

from seamount.errors import ModelNotFound

_DIRECTORY = Path(__file__).parent


def names() -> tuple[str, ...]:
    """Every preset's name, in alphabetical order."""
    return tuple(sorted(path.stem for path in _DIRECTORY.glob("*.json")))


def config(name: str) -> dict[str, Any]:
    """A preset's config, in Hugging Face form; the caller's own copy.

    Errors: ModelNotFound, with all names that exist.
    """
    if name not in names():
        raise ModelNotFound(f"no preset {name!r}; there are: {', '.join(names())}")
    values: dict[str, Any] = json.loads((_DIRECTORY / f"{name}.json").read_text(encoding="utf-8"))
    return values
