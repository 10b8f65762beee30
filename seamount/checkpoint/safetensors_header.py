"""The header of a safetensors file, checked in full before any tensor is touched.

Layout: 8 bytes little-endian header length, a JSON object {name: {dtype, shape, data_offsets}}, then the data; offsets
count from the end of the header, and the tensors fill the data without gap or overlap.
Source: the safetensors format description. Equals: the safetensors package, on every file that it accepts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from seamount.checkpoint.mapped_file import MappedFile
from seamount.checkpoint.strict_json import MAX_JSON_BYTES, parse_json_object
from seamount.errors import CheckpointError, CorruptFile

LINE_BYTES = 64  # of a cache line: where the data begin, so that tensors of whole lines keep to lines
MAX_DIMENSIONS = 16
MAX_ELEMENTS = 1 << 56

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class StoredTensor(NamedTuple):
    """Where a tensor lies in its file; `offset` counts from the start of the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def parse_header(mapped: MappedFile) -> dict[str, StoredTensor]:
    """Every tensor of the file, by name.

    Errors: CorruptFile for anything that is not exactly the format; CheckpointError for a dtype that torch lacks.
    """
    path = mapped.path
    length = int.from_bytes(mapped.map[:8], "little")
    if mapped.size < 8 or length > min(mapped.size - 8, MAX_JSON_BYTES):
        raise CorruptFile(
            f"{path} is truncated or no safetensors file: its header claims {length} bytes, the file has {mapped.size}"
        )
    data_start = 8 + length
    entries = parse_json_object(mapped.map[8:data_start], f"the header of {path}")
    if "__metadata__" in entries and not isinstance(entries.pop("__metadata__"), dict):
        raise CorruptFile(f"{path}: __metadata__ is not a JSON object")
    tensors = {name: _stored_tensor(f"{path}: {name!r}", entry, data_start) for name, entry in entries.items()}
    position = data_start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
        if tensor.offset != position:
            raise CorruptFile(
                f"{path}: {name!r} begins at byte {tensor.offset}, but the tensor before ends at {position}"
            )
        position += tensor.nbytes
    if position != mapped.size:
        raise CorruptFile(f"{path} has {mapped.size} bytes where its header describes {position}; fetch it again")
    return tensors


def build_header(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """Length and header for these tensors, whose data follow in the same order, from a multiple of LINE_BYTES on."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, tensor in tensors.items():
        end = position + tensor.nbytes
        entries[name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % LINE_BYTES)
    return len(text).to_bytes(8, "little") + text


def _stored_tensor(origin: str, entry: Any, data_start: int) -> StoredTensor:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CorruptFile(f"{origin} must have exactly dtype, shape and data_offsets")
    dtype_name, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype_name, str) or dtype_name not in DTYPES:
        raise CheckpointError(f"{origin} has dtype {dtype_name!r}; allowed are {', '.join(DTYPES)}")
    # Sizes of zero count as one here: torch multiplies the others all the same, for its strides.
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS or math.prod(max(size, 1) for size in shape) > MAX_ELEMENTS:
        raise CorruptFile(
            f"{origin} has no usable shape: a list of at most {MAX_DIMENSIONS} sizes "
            f"with at most {MAX_ELEMENTS} elements is needed"
        )
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CorruptFile(f"{origin} has no usable data_offsets: [begin, end] is needed")
    dtype = DTYPES[dtype_name]
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes != offsets[1] - offsets[0]:
        raise CorruptFile(
            f"{origin} of shape {shape} and dtype {dtype_name} needs {nbytes} bytes, "
            f"its data_offsets give {offsets[1] - offsets[0]}"
        )
    return StoredTensor(dtype, tuple(shape), data_start + offsets[0], nbytes)


def _are_sizes(values: Any) -> bool:
    # type() rather than isinstance(): JSON's true is an int to Python.
    return isinstance(values, list) and all(type(value) is int and 0 <= value <= MAX_ELEMENTS for value in values)
