"""Writing checkpoints: other readers agree, shards keep their size, and a crash at any moment leaves none or all."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from seamount.checkpoint import CheckpointWriter, encode_fp8, open_tensors, read_config
from seamount.errors import CheckpointError, SeamountError

CONFIG = {"model_type": "llama", "name": "é"}


def sample() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    base = torch.randn(6, 4, generator=generator)
    code_FD, scale_inv_GG = encode_fp8(torch.randn(5, 131, generator=generator))
    return {
        "transposed": base.T,
        "alias": base,
        "byte": torch.arange(7, dtype=torch.uint8),
        "half": torch.randn(3, generator=generator).bfloat16(),
        "scalar": torch.tensor(3.0),
        "empty": torch.empty(0, 3),
        "expanded": torch.tensor([1.0, 2.0]).expand(3, 2),
        "x.weight": code_FD,
        "x.weight_scale_inv": scale_inv_GG,
    }


def write(directory: Path, tensors: Iterable[tuple[str, torch.Tensor]], **options) -> None:
    with CheckpointWriter(directory, CONFIG, **options) as writer:
        for name, tensor in tensors:
            writer.add(name, tensor)


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    bytes_of = [tensor.contiguous().view(-1).view(torch.uint8) for tensor in (first, second)]
    return first.shape == second.shape and first.dtype == second.dtype and torch.equal(*bytes_of)


def test_one_file_equals_the_safetensors_package(tmp_path):
    tensors = sample()
    write(tmp_path, tensors.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    theirs = load_file(tmp_path / "model.safetensors")
    assert theirs.keys() == tensors.keys()
    assert all(same(theirs[name], tensors[name]) for name in tensors)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert read_config(tmp_path) == CONFIG


def test_reading_and_writing_again_gives_the_same_tensors(tmp_path):
    tensors = {name: tensor for name, tensor in sample().items() if not name.startswith("x.")}
    write(tmp_path / "first", tensors.items())
    source = open_tensors(tmp_path / "first")
    write(tmp_path / "second", ((name, source.read(name)) for name in source.names()), shard_bytes=50)
    again = open_tensors(tmp_path / "second")
    assert sorted(again.names()) == sorted(tensors)
    assert all(same(again.read(name), tensors[name]) for name in tensors)


def test_shards(tmp_path):
    tensors = {f"t{number}": torch.full((10,), float(number)) for number in range(5)}
    tensors["large"] = torch.zeros(100)
    tensors["last"] = torch.zeros(1)
    write(tmp_path, tensors.items(), shard_bytes=80)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 5 * 40 + 400 + 4
    shards = [f"model-0000{number}-of-00005.safetensors" for number in range(1, 6)]
    members = {shard: [name for name in tensors if index["weight_map"][name] == shard] for shard in shards}
    assert list(members.values()) == [["t0", "t1"], ["t2", "t3"], ["t4"], ["large"], ["last"]]
    for shard, names in members.items():
        theirs = load_file(tmp_path / shard)
        assert sorted(theirs) == sorted(names)
        assert all(same(theirs[name], tensors[name]) for name in names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", *shards, "model.safetensors.index.json"]


def test_former_checkpoint_is_kept_unless_told(tmp_path):
    write(tmp_path, {"a": torch.ones(3), "b": torch.ones(3)}.items(), shard_bytes=12)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="already holds a checkpoint"):
        CheckpointWriter(tmp_path, CONFIG)
    source = open_tensors(tmp_path)
    kept = source.read("a")
    write(tmp_path, [("a", torch.zeros(3))], overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert open_tensors(tmp_path).read("a").tolist() == [0, 0, 0]
    assert kept.tolist() == [1, 1, 1]


def test_wrong_use(tmp_path):
    writer = CheckpointWriter(tmp_path, CONFIG)
    with pytest.raises(CheckpointError, match="no tensors"):
        writer.finish()
    writer.add("a", torch.ones(1))
    with pytest.raises(CheckpointError, match="'a' is given twice"):
        writer.add("a", torch.ones(1))
    with pytest.raises(CheckpointError, match="complex64"):
        writer.add("c", torch.ones(1, dtype=torch.complex64))
    writer.finish()
    writer.finish()
    assert open_tensors(tmp_path).names() == ["a"]


def test_error_inside_the_block_leaves_nothing(tmp_path):
    def interrupted():
        yield from dict.fromkeys("abc", torch.ones(1)).items()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, interrupted(), shard_bytes=4)
    assert list(tmp_path.iterdir()) == []


class Killed(BaseException):
    """Stands for the process's end: nothing after it is carried out."""


def write_and_die(directory: Path, step: int, tensors: dict[str, torch.Tensor], monkeypatch, overwrite: bool) -> bool:
    """Write, ending before the given file-system step; whether the writing came to its end."""
    left = [step]

    def counted(function):
        def run(*args, **options):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return function(*args, **options)

        return run

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", counted(os.fsync))
        patch.setattr(Path, "rename", counted(Path.rename))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        patch.setattr(Path, "open", counted(Path.open))
        try:
            writer = CheckpointWriter(directory, CONFIG | {"new": True}, shard_bytes=8, overwrite=overwrite)
            for name, tensor in tensors.items():
                writer.add(name, tensor)
            writer.finish()
        except Killed:
            return False
    return True


@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_at_any_step_leaves_no_half_checkpoint(tmp_path, monkeypatch, overwrite):
    old = {"a": torch.ones(2), "z": torch.ones(2)}
    new = {"a": torch.zeros(2), "b": torch.zeros(2), "c": torch.zeros(2)}
    seen = set()
    is_complete, step = False, 0
    while not is_complete:
        directory = tmp_path / str(step)
        if overwrite:
            write(directory, old.items(), shard_bytes=8)
        is_complete = write_and_die(directory, step, new, monkeypatch, overwrite)
        try:
            config, source = read_config(directory), open_tensors(directory)
        except SeamountError:
            seen.add("none")
        else:
            expected = new if "new" in config else old
            seen.add("new" if "new" in config else "old")
            assert sorted(source.names()) == sorted(expected)
            assert all(same(source.read(name), expected[name]) for name in expected)
        # Whatever was left, the next writer clears it away.
        write(directory, new.items(), overwrite=True)
        assert sorted(path.name for path in directory.iterdir()) == ["config.json", "model.safetensors"]
        step += 1
    assert step > 12
    assert seen == ({"old", "none", "new"} if overwrite else {"none", "new"})
