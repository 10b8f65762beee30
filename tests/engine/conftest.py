"""The toy model and an engine over it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from toy_model import ToyModel, toy_tokenizer

from seamount.engine import Engine
from seamount.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return toy_tokenizer(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def model(tokenizer: Tokenizer) -> ToyModel:
    return ToyModel(tokenizer)


@pytest.fixture
def engine(model: ToyModel) -> Engine:
    return Engine(model)
