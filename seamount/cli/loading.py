"""Loads the model that a verb works on. Imports torch: import this inside a verb only."""

import torch

from seamount.cli.options import DtypeName, LoadedFormatName
from seamount.cli.output import progress_bar
from seamount.models import Model, load


def load_model(model: str, dtype: DtypeName | None, quantize: LoadedFormatName | None = None) -> Model:
    """The model, with a progress bar while its weights are read.

    Errors: those of `seamount.load`.
    """
    with progress_bar(f"loading {model}") as progress:
        kept = None if dtype is None else getattr(torch, dtype.value)
        return load(model, dtype=kept, quantize=quantize, progress=progress)
