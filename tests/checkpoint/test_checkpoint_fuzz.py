"""Damaged files of every kind: a named error or a success, never anything else, and never much memory."""

import contextlib
import json
import shutil
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seamount.checkpoint import CheckpointWriter, encode_fp8, open_tensors, read_config
from seamount.errors import SeamountError

MEMORY_LIMIT = 32_000_000
FUZZ = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# Bytes that mean something to the formats, beside any byte at all.
BYTES = st.one_of(
    st.binary(min_size=1, max_size=9),
    st.sampled_from(
        [b"\xff" * 8, b"\0" * 8, b"\0\0\0\0\0\0\0\x80", b'"', b"{", b"[" * 3000, b"9" * 30, b"-", b"../", b"1e999"]
    ),
)
EDITS = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert", "remove"]), st.floats(0, 1), BYTES), min_size=1, max_size=3
)
Edit = tuple[str, float, bytes]


def damage(data: bytes, edits: list[Edit], reach: int) -> bytes:
    """Apply the edits at places among the first `reach` bytes."""
    for action, place, new in edits:
        position = int(place * min(reach, len(data)))
        if action == "flip":
            data = data[:position] + new + data[position + len(new) :]
        elif action == "cut":
            data = data[:position]
        elif action == "insert":
            data = data[:position] + new + data[position:]
        else:
            data = data[:position] + data[position + len(new) :]
    return data


def read_everything(path: Path) -> None:
    with open_tensors(path) as source:
        for name in source.names():
            tensor = source.read(name)
            assert (tuple(tensor.shape), tensor.dtype) == (source.shape(name), source.dtype(name))


def only_named_errors(action: Callable[[], object]) -> None:
    tracemalloc.start()
    try:
        with contextlib.suppress(SeamountError):
            action()
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < MEMORY_LIMIT


@pytest.fixture(scope="module")
def checkpoint():
    """A directory with two shards, an index, a config and an FP8 matrix."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "model"
        code_FD, scale_inv_GG = encode_fp8(torch.randn(130, 20))
        config = {"model_type": "llama", "hidden_size": 8, "rope_scaling": {"type": "yarn", "factor": 40.0}}
        with CheckpointWriter(directory, config, shard_bytes=3000) as writer:
            writer.add("x.weight", code_FD)
            writer.add("x.weight_scale_inv", scale_inv_GG)
            writer.add("norm", torch.ones(8).bfloat16())
            writer.add("ids", torch.arange(100))
        assert len(list(directory.glob("*.safetensors"))) == 2
        yield directory


def with_damaged(source: Path, victim: str, edits: list[Edit], reach: int, action: Callable[[Path], object]) -> None:
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "model"
        shutil.copytree(source, copy)
        path = copy / victim
        path.write_bytes(damage(path.read_bytes(), edits, reach))
        only_named_errors(lambda: action(copy))


@FUZZ
@given(edits=EDITS, number=st.sampled_from([1, 2]))
def test_safetensors_header(checkpoint, edits, number):
    with_damaged(checkpoint, f"model-0000{number}-of-00002.safetensors", edits, 320, read_everything)


@FUZZ
@given(edits=EDITS)
def test_index(checkpoint, edits):
    with_damaged(checkpoint, "model.safetensors.index.json", edits, 10_000, read_everything)


@FUZZ
@given(edits=EDITS)
def test_config(checkpoint, edits):
    with_damaged(checkpoint, "config.json", edits, 10_000, read_config)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["F32", "BF16"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "a", "__metadata__"]), inner, max_size=4)
    ),
    max_leaves=12,
)
SIZE = st.integers(-1, 9) | st.sampled_from([2**31, 2**47, 2**63, 2**64, 10**400, True, 1.0, None, "1"])
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "BOOL", "F8_E4M3", "Q", 4, None]),
        "shape": st.lists(SIZE, max_size=3) | JSON,
        "data_offsets": st.lists(SIZE, min_size=2, max_size=2) | JSON,
    }
)


@FUZZ
@given(entries=st.dictionaries(st.text(max_size=3), ENTRY | JSON, max_size=3) | JSON, data=st.binary(max_size=40))
def test_safetensors_header_of_any_structure(tmp_path, entries, data):
    text = json.dumps(entries).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    only_named_errors(lambda: read_everything(tmp_path))


@FUZZ
@given(edits=EDITS)
def test_gguf_header(make_gguf, edits):
    values = np.arange(64, dtype=np.float32).reshape(2, 32)
    path = make_gguf({"a.weight": (values, Kind.F32), "b": (np.zeros((2, 34), dtype=np.uint8), Kind.Q8_0)}, "good.gguf")
    damaged = path.with_name("bad.gguf")
    damaged.write_bytes(damage(path.read_bytes(), edits, 600))
    only_named_errors(lambda: read_everything(damaged))


@pytest.mark.parametrize("kind", [0, 5, 8, 12])
@pytest.mark.parametrize("count", [(1 << 22) + 1, 1 << 31, 1 << 40, 1 << 63])
def test_gguf_array_lengths_cost_no_memory(tmp_path, count, kind):
    # A sparse file: large to look at, empty on the disk, so that the file's size alone bounds nothing.
    path = tmp_path / "sparse.gguf"
    start = b"GGUF" + (3).to_bytes(4, "little") + bytes(8) + (1).to_bytes(8, "little")
    start += (1).to_bytes(8, "little") + b"k" + (9).to_bytes(4, "little") + kind.to_bytes(4, "little")
    with path.open("wb") as file:
        file.write(start + count.to_bytes(8, "little"))
        file.truncate(1 << 33)
    only_named_errors(lambda: read_everything(path))
    with pytest.raises(SeamountError, match=f"{count} array elements are claimed"):
        open_tensors(path)


def test_safetensors_header_length_costs_no_memory(tmp_path):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write((1 << 32).to_bytes(8, "little"))
        file.truncate(1 << 33)
    only_named_errors(lambda: read_everything(tmp_path))
    with pytest.raises(SeamountError, match="header claims 4294967296"):
        open_tensors(tmp_path)
