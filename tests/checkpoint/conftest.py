"""Small checkpoints for the tests of this folder."""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

GGUFMaker = Callable[..., Path]


@pytest.fixture
def make_gguf(tmp_path: Path) -> GGUFMaker:
    """Writes a GGUF file with the gguf package: tensors by name as (block bytes or numbers, type)."""

    def make(tensors: dict[str, tuple[np.ndarray, gguf.GGMLQuantizationType]], name: str = "model.gguf") -> Path:
        path = tmp_path / name
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_context_length(64)
        writer.add_float32("llama.rope.freq_base", 1e5)
        writer.add_bool("flag", True)
        writer.add_array("tokens", ["a", "", "é", "日本", "<s>"])
        writer.add_array("token_type", [1, 2, -3])
        writer.add_array("scores", [0.5, -1.0])
        for tensor, (data, kind) in tensors.items():
            writer.add_tensor(tensor, data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return make
