"""Tiny models of every attention kind, in every format, with the toy's tokenizer; and engines of a given pool."""

from __future__ import annotations

from pathlib import Path

from toy_model import toy_tokenizer

import seamount
from seamount.engine import Engine
from seamount.models import Model, initialise

SHAPES = {
    "gqa": ("tiny-llama", {}),
    "mla": ("tiny-v2-lite", {"first_k_dense_replace": 3}),
    "mla-moe": ("tiny-v3", {}),
}
FORMATS = {
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "int8": {"quantize": "int8"},
}
KINDS = [f"{shape} {format}" for shape in SHAPES for format in FORMATS]


def checkpoint(directory: Path, shape: str, seed: int = 1) -> Path:
    """A directory of random weights, large enough that answers depend on all that came before."""
    preset, overrides = SHAPES[shape]
    initialise(preset, directory, seed=seed, overrides={**overrides, "initializer_range": 0.2})
    toy_tokenizer(directory)
    return directory


def load(directory: Path, format: str) -> Model:
    """The model of a directory that `checkpoint` made."""
    return seamount.load(directory, **FORMATS[format])


class PoolEngine(Engine):
    """An engine whose `memory` is that of its pages alone, so that a test can say how many there are."""

    def _page_count(self) -> int:
        return self.config.memory_bytes // self._layout.nbytes


def pool_engine(model: Model, pages: int, **options: object) -> Engine:
    """An engine of so many pages, that hold nothing which could be read by mistake."""
    engine = PoolEngine(model, memory=pages * model.page_layout.nbytes, **options)
    poison(engine)
    return engine


def poison(engine: Engine) -> None:
    """Fill all free pages with not-a-numbers."""
    for page in engine._store._free:
        engine._store.pages.memory[page].fill_(255)
