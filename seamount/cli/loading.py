"""Loads what a verb works on. Imports torch: import this inside a verb only."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import torch

from seamount.cli.options import DraftsName, DtypeName, LoadedFormatName
from seamount.cli.output import progress_bar
from seamount.engine import Engine, EngineConfig
from seamount.models import Model, load


def load_model(model: str, dtype: DtypeName | None, quantize: LoadedFormatName | None = None) -> Model:
    """The model, with a progress bar while its weights are read.

    Where neither a dtype nor a format is asked for, a GGUF's own blocks are kept if `seamount.load` thinks it fast.
    Errors: those of `seamount.load`.
    """
    with progress_bar(f"loading {model}") as progress:
        kept = None if dtype is None else getattr(torch, dtype.value)
        if quantize is None:
            format = "auto" if dtype is None else None
        else:
            format = None if quantize is LoadedFormatName.none else quantize.value
        return load(model, dtype=kept, quantize=format, progress=progress)


@dataclass(frozen=True)
class EngineOptions:
    """What the options of a verb say of its engine."""

    dtype: DtypeName | None
    quantize: LoadedFormatName | None
    memory: str | None
    cache_dir: Path | None
    cache_size: str | None
    drafts: DraftsName


def load_engine(model: str, options: EngineOptions) -> Engine:
    """The model under an engine; to be closed, so that what the directory is to keep is written.

    Errors: those of `seamount.load` and of the engine.
    """
    loaded = load_model(model, options.dtype, options.quantize)
    return _engine(loaded, options.memory, options.cache_dir, options)


@contextmanager
def load_engines(models: Mapping[str, str], options: EngineOptions) -> Iterator[dict[str, Engine]]:
    """Several models under engines that share the memory evenly, by name; each has a part of the directory to itself.

    Errors: those of `seamount.load` and of the engine.
    """
    loaded = {name: load_model(model, options.dtype, options.quantize) for name, model in models.items()}
    # Asked for once all weights are there.
    share = EngineConfig(memory=options.memory).memory_bytes // len(loaded)
    with ExitStack() as stack:
        engines = {}
        for name, model in loaded.items():
            folder = options.cache_dir
            if folder is not None and len(loaded) > 1:
                folder /= quote(name, safe="")
            engines[name] = stack.enter_context(_engine(model, share, folder, options))
        yield engines


def _engine(model: Model, memory: int | str | None, folder: Path | None, options: EngineOptions) -> Engine:
    drafts = options.drafts.value
    return Engine(model, memory, cache_directory=folder, cache_size=options.cache_size, drafts=drafts)
