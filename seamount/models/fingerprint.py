"""The fingerprint of a model: equal fingerprints mean that cached rows of one are those of the other, bit for bit."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numba
import torch
from torch import Tensor

from seamount import kernels
from seamount.models.model import Model
from seamount.models.packed import packed_weights

_PIECE = 1 << 24  # bytes hashed at once, by one thread; weights of a GPU are copied so many at a time


def fingerprint(model: Model) -> bytes:
    """32 bytes over all that the rows of a model's cache depend on: spec, weights to the last bit, device and code.

    The code counts because another version of it may round otherwise: our own, the compiler, and torch with the path
    that it takes on this processor (the angles of positions are its). What is not in it is how rows are stored.
    Cost: reads all weights once, on all threads, at about the speed of memory; from a GPU piece by piece.
    """
    digest = hashlib.blake2b(digest_size=32, person=b"seamount model")
    digest.update(_framed(repr(model.spec)) + _framed(*_software(model.device)))
    pieces: list[Tensor] = []
    for name, kind, tensor in _tensors(model):
        digest.update(_framed(name, kind, str(tensor.dtype), str(tuple(tensor.shape))))
        pieces += tensor.reshape(-1).split(_PIECE // tensor.element_size())
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for part in threads.map(_checksum, pieces):
            digest.update(part)
    return digest.digest()


def _tensors(model: Model) -> Iterator[tuple[str, str, Tensor]]:
    """Every tensor of a model with its name and what it is; the two of a packed weight one after the other."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        yield name, "plain", tensor.detach()
    for name, weight in packed_weights(model):
        yield name, f"{weight.format} {weight.rows} {weight.columns} blocks", weight.blocks
        yield name, "scale", weight.scale


def _checksum(piece: Tensor) -> bytes:
    return kernels.checksum(piece.cpu().view(torch.uint8))


def _framed(*texts: str) -> bytes:
    """Texts such that no two lists of them give the same bytes."""
    return b"".join(len(text.encode()).to_bytes(8, "little") + text.encode() for text in (str(len(texts)), *texts))


@cache
def _software(device: torch.device) -> tuple[str, ...]:
    package, source = Path(__file__).parents[1], hashlib.blake2b(digest_size=32)
    for path in sorted(file for unit in ("kernels", "models") for file in (package / unit).rglob("*.py")):
        source.update(_framed(path.relative_to(package).as_posix(), path.read_text(encoding="utf-8")))
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return source.hexdigest(), torch.__version__, numba.__version__, device.type, processor
