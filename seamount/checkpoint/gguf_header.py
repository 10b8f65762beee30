"""The header of a GGUF file: metadata and tensor descriptions, every count bounded before anything is allocated.

Layout: magic, version, tensor count, metadata count; the metadata as (key, type, value); per tensor its name, shape,
type and offset; then, aligned, the data. All little-endian.
Source: the GGUF specification, versions 2 and 3. Equals: gguf.GGUFReader.
"""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple

from seamount.checkpoint.gguf_types import GGML_TYPES, GGMLType
from seamount.checkpoint.mapped_file import MappedFile
from seamount.errors import CheckpointError, CorruptFile

MAX_ARRAY = 1 << 22
MAX_METADATA = 1 << 16
MAX_TENSORS = 1 << 20
MAX_NAME_BYTES = 1 << 16
MAX_DIMENSIONS = 4
MAX_ELEMENTS = 1 << 56
STRING, ARRAY, BOOL = 8, 9, 7
LENGTH = struct.Struct("<Q")
NUMBER_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", BOOL: "?", 10: "Q", 11: "q", 12: "d"}
OLDER_MAGICS = (b"lmgg", b"fmgg", b"tjgg", b"algg", b"ggml", b"ggmf", b"ggjt", b"ggla")


class GGUFTensor(NamedTuple):
    """Where a tensor lies in its file; `shape` is torch's (rows first), `offset` counts from the start of the file."""

    kind: GGMLType
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class GGUFHeader(NamedTuple):
    """Everything that precedes the data."""

    version: int
    metadata: dict[str, Any]
    tensors: dict[str, GGUFTensor]


class _Cursor:
    """A position in the file that never moves past its end."""

    def __init__(self, mapped: MappedFile) -> None:
        self.map, self.path, self.size, self.position = mapped.map, mapped.path, mapped.size, 0

    def corrupt(self, problem: str) -> CorruptFile:
        return CorruptFile(f"{self.path}, byte {self.position}: {problem}; fetch the file again")

    def need(self, count: int, size: int, limit: int, what: str) -> None:
        if count > limit or count * size > self.size - self.position:
            raise self.corrupt(f"{count} {what} are claimed, more than the file or the limit of {limit} allows")

    def number(self, code: str) -> Any:
        form = "<" + code
        size = struct.calcsize(form)
        self.need(1, size, 1, "numbers")
        (value,) = struct.unpack_from(form, self.map, self.position)
        self.position += size
        return value

    def string(self, limit: int) -> str:
        length = self.number("Q")
        self.need(length, 1, limit, "bytes of text")
        start, self.position = self.position, self.position + length
        try:
            return self.map[start : self.position].decode()
        except UnicodeDecodeError as error:
            raise self.corrupt(f"text is not UTF-8 ({error})") from error

    def strings(self, count: int) -> list[str]:
        # Vocabularies hold a hundred thousand of these, so the loop works on local names and checks one bound each; a
        # text that reaches past the end is cut there by the slice and refused by the next check.
        data, position, last = self.map, self.position, self.size - 8
        length_at, result = LENGTH.unpack_from, []
        for _ in range(count):
            if position > last:
                raise self.corrupt("a text of an array reaches past the end")
            start = position + 8
            position = start + length_at(data, position)[0]
            result.append(data[start:position])
        if position > self.size:
            raise self.corrupt("a text of an array reaches past the end")
        self.position = position
        try:
            return [text.decode() for text in result]
        except UnicodeDecodeError as error:
            raise self.corrupt(f"text of an array is not UTF-8 ({error})") from error

    def array(self) -> list[Any]:
        kind, count = self.number("I"), self.number("Q")
        if kind == STRING:
            self.need(count, 8, MAX_ARRAY, "array elements")
            return self.strings(count)
        if kind not in NUMBER_FORMATS:
            raise self.corrupt(f"array elements of type {kind}; texts and numbers are allowed")
        code = NUMBER_FORMATS[kind]
        size = struct.calcsize("<" + code)
        self.need(count, size, MAX_ARRAY, "array elements")
        values = struct.unpack_from(f"<{count}{code}", self.map, self.position)
        self.position += count * size
        return list(values)

    def value(self) -> Any:
        kind = self.number("I")
        if kind == STRING:
            return self.string(self.size)
        if kind == ARRAY:
            return self.array()
        if kind not in NUMBER_FORMATS:
            raise self.corrupt(f"metadata of type {kind}; 0 to 12 are allowed")
        return self.number(NUMBER_FORMATS[kind])


def parse_gguf_header(mapped: MappedFile) -> GGUFHeader:
    """Metadata and tensors of the file.

    Errors: CorruptFile where the bytes contradict the format; CheckpointError for an older format, the other byte
    order, a type that this package does not know, or one part of a split file.
    """
    cursor = _Cursor(mapped)
    version = _version(cursor)
    tensor_count, metadata_count = cursor.number("Q"), cursor.number("Q")
    cursor.need(metadata_count, 13, MAX_METADATA, "metadata entries")
    cursor.need(tensor_count, 24, MAX_TENSORS, "tensors")
    metadata: dict[str, Any] = {}
    for _ in range(metadata_count):
        key = cursor.string(MAX_NAME_BYTES)
        if key in metadata:
            raise cursor.corrupt(f"the metadata key {key!r} is given twice")
        metadata[key] = cursor.value()
    split_count = metadata.get("split.count", 1)
    if split_count not in (0, 1):
        raise CheckpointError(
            f"{mapped.path} is one of {split_count!r} parts; merge them with llama.cpp: gguf-split --merge"
        )
    return GGUFHeader(version, metadata, _tensors(cursor, tensor_count, _alignment(mapped, metadata)))


def _version(cursor: _Cursor) -> int:
    magic = cursor.map[:4]
    if magic in OLDER_MAGICS:
        raise CheckpointError(
            f"{cursor.path} has the magic {magic!r} of a format older than GGUF; convert it to GGUF 3"
        )
    if magic != b"GGUF":
        raise CorruptFile(f"{cursor.path} is no GGUF file: it begins with {magic!r} instead of b'GGUF'")
    cursor.position = 4
    version: int = cursor.number("I")
    if version & 0xFFFF == 0 and version:
        raise CheckpointError(f"{cursor.path} is a big-endian GGUF file; convert it to little-endian")
    if version not in (2, 3):
        raise CheckpointError(f"{cursor.path} is GGUF version {version}; versions 2 and 3 are read")
    return version


def _alignment(mapped: MappedFile, metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
        raise CorruptFile(f"{mapped.path}: general.alignment is {alignment!r}; a power of two is needed")
    return alignment


def _tensors(cursor: _Cursor, count: int, alignment: int) -> dict[str, GGUFTensor]:
    relative = [_tensor(cursor) for _ in range(count)]
    data_start = -(-cursor.position // alignment) * alignment
    tensors: dict[str, GGUFTensor] = {}
    for name, tensor in relative:
        if name in tensors:
            raise cursor.corrupt(f"the tensor {name!r} is described twice")
        if tensor.offset % alignment:
            raise cursor.corrupt(f"the tensor {name!r} begins at {tensor.offset}, no multiple of {alignment}")
        tensors[name] = tensor._replace(offset=data_start + tensor.offset)
    end, before = 0, ""
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
        if tensor.offset + tensor.nbytes > cursor.size:
            raise CorruptFile(
                f"{cursor.path} is truncated: {name!r} ends at byte {tensor.offset + tensor.nbytes}, "
                f"the file at {cursor.size}; fetch it again"
            )
        if tensor.offset < end:
            raise CorruptFile(f"{cursor.path}: the tensors {before!r} and {name!r} overlap")
        end, before = tensor.offset + tensor.nbytes, name
    return tensors


def _tensor(cursor: _Cursor) -> tuple[str, GGUFTensor]:
    name = cursor.string(MAX_NAME_BYTES)
    dimensions = cursor.number("I")
    cursor.need(dimensions, 8, MAX_DIMENSIONS, f"dimensions of {name!r}")
    sizes = [cursor.number("Q") for _ in range(dimensions)]
    number, offset = cursor.number("I"), cursor.number("Q")
    kind = GGML_TYPES.get(number)
    if kind is None:
        raise CheckpointError(f"{cursor.path}: {name!r} has element type {number}, which is not known here")
    row = sizes[0] if sizes else 1
    if row % kind.block_elements:
        raise cursor.corrupt(f"{name!r} has rows of {row}, no multiple of {kind.name}'s {kind.block_elements}")
    # Sizes of zero count as one here: torch multiplies the others all the same, for its strides.
    if math.prod(max(size, 1) for size in sizes) > MAX_ELEMENTS:
        raise cursor.corrupt(f"{name!r} of shape {sizes} has more elements than any file")
    nbytes = math.prod(sizes) // kind.block_elements * kind.block_bytes
    return name, GGUFTensor(kind, tuple(reversed(sizes)), offset, nbytes)
