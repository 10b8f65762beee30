"""Seamount: load, serve, train and measure the DeepSeek model family.

    model = seamount.load("embedded")
    model.generate("The capital of France is", max_tokens=8)

The names below are imported when first used, so that `import seamount` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seamount import errors
    from seamount.engine import Engine, SamplingParams
    from seamount.models import Model, load, save

__version__ = "0.1.0"

_WHERE = {
    "Engine": "seamount.engine",
    "Model": "seamount.models",
    "SamplingParams": "seamount.engine",
    "load": "seamount.models",
    "save": "seamount.models",
}

__all__ = ["Engine", "Model", "SamplingParams", "__version__", "errors", "load", "save"]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("seamount.errors")
    if name not in _WHERE:
        raise AttributeError(f"module 'seamount' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
