"""Safetensors directories: what is read equals the safetensors package, and what is refused says why."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from seamount.checkpoint import SafetensorsDirectory, open_tensors, read_config
from seamount.checkpoint.safetensors_header import DTYPES
from seamount.errors import CheckpointError, CorruptFile, ModelNotFound, TensorMismatch, UnsafeFile


def write_index(directory: Path, weight_map: dict[str, str]) -> None:
    text = json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map})
    (directory / "model.safetensors.index.json").write_text(text)


def raw_safetensors(entries: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def test_every_dtype_equals_the_safetensors_package(tmp_path):
    tensors = {}
    for name, dtype in DTYPES.items():
        if not name.startswith("F8_E4"):
            count = 30 * dtype.itemsize
            raw = torch.arange(count, dtype=torch.uint8) % (2 if dtype == torch.bool else 100)
            tensors[name] = raw.view(dtype).reshape(2, 3, 5)
    tensors["scalar"] = torch.tensor(2.5)
    tensors["empty"] = torch.empty(0, 7)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    expected = load_file(tmp_path / "model.safetensors")
    with open_tensors(tmp_path) as source:
        assert sorted(source.names()) == sorted(expected)
        for name, tensor in expected.items():
            mine = source.read(name)
            assert (source.shape(name), source.dtype(name)) == (tuple(tensor.shape), tensor.dtype)
            assert torch.equal(mine.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)), name
        assert source.nbytes == sum(tensor.nbytes for tensor in expected.values())


def test_conversion_and_reading_into_place(tmp_path, monkeypatch):
    # Small pieces, so that the seams between them are crossed.
    monkeypatch.setattr("seamount.checkpoint.mapped_file.COPY_BYTES", 4096)
    weight = torch.randn(300, 70)
    save_file({"w": weight}, tmp_path / "model.safetensors")
    source = SafetensorsDirectory(tmp_path)
    assert torch.equal(source.read("w", torch.bfloat16), weight.bfloat16())
    stack = torch.zeros(3, 300, 70)
    source.read_into("w", stack[1])
    assert torch.equal(stack, torch.stack([torch.zeros_like(weight), weight, torch.zeros_like(weight)]))
    strided = torch.zeros(70, 300).T
    source.read_into("w", strided)
    assert torch.equal(strided, weight)
    kept = source.read("w")
    source.close()
    assert torch.equal(kept, weight), "a tensor must outlive its file"


def test_tensors_off_their_alignment_are_read(tmp_path):
    weight = torch.tensor([1.5, -2.0])
    entries = {
        "a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [3, 11]},
    }
    (tmp_path / "model.safetensors").write_bytes(raw_safetensors(entries, b"\1\2\3" + weight.numpy().tobytes()))
    source = SafetensorsDirectory(tmp_path)
    assert torch.equal(source.read("b"), weight)
    assert source.read("a").tolist() == [1, 2, 3]


def test_shards_with_and_without_an_index(tmp_path):
    first, second = {"a": torch.ones(2), "b": torch.zeros(3)}, {"c": torch.full((4,), 3.0)}
    save_file(first, tmp_path / "one.safetensors")
    save_file(second, tmp_path / "two.safetensors")
    assert sorted(open_tensors(tmp_path).names()) == ["a", "b", "c"]
    write_index(tmp_path, {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"})
    source = open_tensors(tmp_path)
    assert torch.equal(source.read("c"), second["c"])


def test_index_and_shards_that_disagree_list_everything(tmp_path):
    save_file({"a": torch.ones(1), "extra": torch.ones(1)}, tmp_path / "one.safetensors")
    save_file({"a": torch.ones(1), "c": torch.ones(1)}, tmp_path / "two.safetensors")
    write_index(tmp_path, {"a": "one.safetensors", "c": "one.safetensors", "d": "two.safetensors"})
    with pytest.raises(TensorMismatch) as caught:
        open_tensors(tmp_path)
    for part in ("a is in one", "extra is in one", "c is in two.safetensors, the index says one", "d is in the index"):
        assert part in str(caught.value)


def test_duplicates_across_shards_without_an_index(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "one.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "two.safetensors")
    with pytest.raises(TensorMismatch, match=r"a is in one\.safetensors and in two\.safetensors"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("indexed", [True, False])
def test_missing_shards(tmp_path, indexed):
    save_file({"a": torch.ones(1)}, tmp_path / "model-00001-of-00002.safetensors")
    if indexed:
        write_index(tmp_path, {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"})
    with pytest.raises(CheckpointError, match="not fetched or written to the end"):
        open_tensors(tmp_path)


ESCAPES = ["../out.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "", "C:\\x.safetensors", "a\0.safetensors"]


@pytest.mark.parametrize("name", ESCAPES)
def test_shard_names_that_lead_out_are_refused(tmp_path, name):
    inside = tmp_path / "model"
    inside.mkdir()
    save_file({"a": torch.ones(1)}, tmp_path / "out.safetensors")
    write_index(inside, {"a": name})
    with pytest.raises(UnsafeFile, match="not a plain file name"):
        open_tensors(inside)


def test_index_may_name_safetensors_only(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"pickle")
    write_index(tmp_path, {"a": "weights.bin"})
    with pytest.raises(UnsafeFile, match=r"only \.safetensors"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "model.safetensors.index.json"])
def test_links_out_of_the_directory_are_refused(tmp_path, name):
    inside = tmp_path / "model"
    inside.mkdir()
    (tmp_path / "secret").write_text("{}")
    (inside / name).symlink_to("../secret")
    with pytest.raises(UnsafeFile, match="link out of the directory"):
        read_config(inside) if name == "config.json" else open_tensors(inside)


def test_link_that_bites_its_tail(tmp_path):
    (tmp_path / "model.safetensors").symlink_to("model.safetensors")
    with pytest.raises(CheckpointError):
        open_tensors(tmp_path)


def test_links_inside_the_directory_and_of_the_hub_cache_are_followed(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    save_file({"a": torch.ones(1)}, blobs / "0123")
    (blobs / "4567").write_text('{"model_type": "llama"}')
    (snapshot / "model.safetensors").symlink_to("../../blobs/0123")
    (snapshot / "config.json").symlink_to("../../blobs/4567")
    assert open_tensors(snapshot).names() == ["a"]
    assert read_config(snapshot) == {"model_type": "llama"}
    # The directory itself may be reached through a link, too.
    (tmp_path / "current").symlink_to(snapshot)
    assert open_tensors(tmp_path / "current").names() == ["a"]
    (snapshot / "model.safetensors").unlink()
    save_file({"b": torch.ones(1)}, snapshot / "real.safetensors")
    (snapshot / "model.safetensors").symlink_to("real.safetensors")
    assert open_tensors(snapshot).names() == ["b"]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickles_are_never_opened(tmp_path, name):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(UnsafeFile, match="pickles"):
        open_tensors(tmp_path)


def test_directories_without_weights(tmp_path):
    with pytest.raises(ModelNotFound, match="no weights"):
        open_tensors(tmp_path)
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match=r"x\.gguf"):
        open_tensors(tmp_path)


def test_pipe_instead_of_a_file(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError):
        open_tensors(tmp_path)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
DEEP = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
DAMAGED = {
    "empty": (b"", "empty"),
    "short": (b"\1\2", "truncated"),
    "header length": (raw_safetensors({"a": ENTRY}, bytes(8), length=1 << 62), "claims 4611686018427387904"),
    "no JSON": (raw_safetensors(b"hello!!!"), "not valid JSON"),
    "no UTF-8": (raw_safetensors(b'{"\xff": 1}'), "not valid JSON"),
    "list": (raw_safetensors(b"[1, 2]"), "JSON object is needed"),
    "deep": (raw_safetensors(DEEP), "nested"),
    "long number": (raw_safetensors(b'{"a": ' + b"9" * 10_000 + b"}"), "not valid JSON"),
    "metadata": (raw_safetensors({"__metadata__": 3}), "__metadata__"),
    "entry": (raw_safetensors({"a": [1]}), "must have exactly"),
    "extra key": (raw_safetensors({"a": {**ENTRY, "stride": 1}}, bytes(8)), "must have exactly"),
    "dtype": (raw_safetensors({"a": {**ENTRY, "dtype": "F3"}}, bytes(8)), "dtype 'F3'; allowed are"),
    "dtype kind": (raw_safetensors({"a": {**ENTRY, "dtype": [1]}}, bytes(8)), "allowed are"),
    "shape": (raw_safetensors({"a": {**ENTRY, "shape": [-2]}}, bytes(8)), "usable shape"),
    "shape kind": (raw_safetensors({"a": {**ENTRY, "shape": [True, 2]}}, bytes(8)), "usable shape"),
    "dimensions": (raw_safetensors({"a": {**ENTRY, "shape": [1] * 99}}, bytes(8)), "usable shape"),
    "absurd": (raw_safetensors({"a": {**ENTRY, "shape": [1 << 47, 4]}}, bytes(8)), "data_offsets give 8"),
    "absurd but empty": (
        raw_safetensors({"a": {**ENTRY, "shape": [0, 1 << 40, 1 << 40], "data_offsets": [0, 0]}}),
        "usable shape",
    ),
    "offsets": (raw_safetensors({"a": {**ENTRY, "data_offsets": [8, 0]}}, bytes(8)), "usable data_offsets"),
    "offset kind": (raw_safetensors({"a": {**ENTRY, "data_offsets": [0, 8.0]}}, bytes(8)), "usable data_offsets"),
    "gap": (raw_safetensors({"a": {**ENTRY, "data_offsets": [4, 12]}}, bytes(12)), "begins at byte"),
    "overlap": (raw_safetensors({"a": ENTRY, "b": {**ENTRY, "data_offsets": [4, 12]}}, bytes(12)), "begins at byte"),
    "truncated": (raw_safetensors({"a": ENTRY}, bytes(7)), "header describes"),
    "trailing": (raw_safetensors({"a": ENTRY}, bytes(9)), "header describes"),
    "key twice": (
        raw_safetensors(b'{"a":' + json.dumps(ENTRY).encode() + b',"a":{}}', bytes(8)),
        "'a' is given twice",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_headers_are_named(tmp_path, case):
    data, message = DAMAGED[case]
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        open_tensors(tmp_path)


@pytest.mark.parametrize(
    "index", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}', "{"]
)
def test_damaged_indexes_are_named(tmp_path, index):
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CorruptFile):
        open_tensors(tmp_path)


def test_config(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"hidden_size": 8, "rope_theta": 1e6}')
    assert read_config(tmp_path) == {"hidden_size": 8, "rope_theta": 1e6}
    (tmp_path / "config.json").write_text('{"hidden_size": 8, "hidden_size": 9}')
    with pytest.raises(CorruptFile, match="twice"):
        read_config(tmp_path)
