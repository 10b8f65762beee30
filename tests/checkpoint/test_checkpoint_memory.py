"""Filling memory from a checkpoint takes the tensors' own size and little more."""

import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from seamount.checkpoint import CheckpointWriter, encode_fp8

MEGABYTE = 1 << 20
# In a process of its own: the peak of this one is already above anything that the test could see. The peak is read from
# /proc, because getrusage's survives exec and so would still be that of the parent.
PROGRAM = """
import sys, torch
from pathlib import Path
from seamount.checkpoint import open_tensors

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

torch.set_num_threads(1)
dtype = getattr(torch, sys.argv[2])
torch.ones(512, 512).to(torch.float8_e4m3fn).to(torch.float32).mul_(2).to(dtype)
with open_tensors(sys.argv[1]) as source:
    before = peak()
    targets = {name: torch.zeros(source.shape(name), dtype=dtype) for name in source.names()}
    for name, target in targets.items():
        source.read_into(name, target)
    print(peak() - before, sum(target.nbytes for target in targets.values()))
"""


def write_plain(directory: Path) -> Path:
    with CheckpointWriter(directory, {}) as writer:
        for number in range(4):
            writer.add(f"w{number}", torch.full((24 * MEGABYTE // 4,), 1.0))
    return directory


def write_fp8(directory: Path) -> Path:
    with CheckpointWriter(directory, {}) as writer:
        for number in range(4):
            code_FD, scale_inv_GG = encode_fp8(torch.ones(4096, 3072))
            writer.add(f"w{number}", code_FD)
            writer.add(f"w{number}_scale_inv", scale_inv_GG)
    return directory


def write_gguf(directory: Path) -> Path:
    path = directory / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for number in range(4):
        writer.add_tensor(f"w{number}", np.zeros((2048, 3264), np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize(
    ("write", "dtype"), [(write_plain, "float32"), (write_fp8, "bfloat16"), (write_gguf, "float32")]
)
def test_peak_while_filling_is_the_tensors_own_size(tmp_path, write, dtype):
    path = write(tmp_path)
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), dtype], capture_output=True, text=True, check=True, timeout=120
    )
    grown, own = map(int, result.stdout.split())
    assert own >= 90 * MEGABYTE
    # A tenth of the size, and what threads, code pages and one block of rows take.
    assert grown <= own * 1.1 + 12 * MEGABYTE, (grown / MEGABYTE, own / MEGABYTE)
