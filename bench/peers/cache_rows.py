"""llama.cpp's saved state of one sequence, made longer by repeating its cache rows."""

import struct

_VALUE_SIZES = {4: "<I", 8: "<Q"}


class _Reader:
    def __init__(self, state: bytes) -> None:
        self.state, self.offset = state, 0

    def take(self, count: int) -> bytes:
        part = self.state[self.offset : self.offset + count]
        if len(part) != count:
            raise ValueError("the state ends early: another version of llama.cpp writes another layout")
        self.offset += count
        return part

    def number(self, size: int = 4) -> int:
        value: int = struct.unpack(_VALUE_SIZES[size], self.take(size))[0]
        return value


def repeated(state: bytes, count: int) -> bytearray:
    """The state of `count` tokens at positions 0, 1, ..., whose rows are those of `state`, over and over.

    Layout (llama.cpp of 2026, `llama_kv_cache::state_write`), little-endian: magic, sequence 0, 1 stream, number of
    cells (4 bytes each); per cell its position, 1 owner, sequence 0; then whether values are transposed, and the number
    of layers. Keys of each layer: type (4), row bytes (8), rows. Values likewise, or transposed: type, element bytes,
    rows (4 each), and each row's elements; none in a latent cache, whose keys hold the values too.
    Errors: ValueError for a state of another layout.
    """
    reader, made = _Reader(state), bytearray()
    made += reader.take(8)
    if reader.number() != 1:
        raise ValueError("the state is of a context of several sequences")
    cells = reader.number()
    made += struct.pack("<II", 1, count)
    for position in range(cells):
        found, owners, sequence = struct.unpack("<iIi", reader.take(12))
        if (found, owners, sequence) != (position, 1, 0):
            raise ValueError(f"cell {position} is of position {found}, sequence {sequence}, {owners} sequences")
    for position in range(count):
        made += struct.pack("<iIi", position, 1, 0)
    is_transposed, layers = reader.number(), reader.number()
    made += struct.pack("<II", is_transposed, layers)
    for _ in range(layers):
        _rows(reader, made, cells, count)
    if reader.offset < len(state):
        for _ in range(layers):
            (_columns if is_transposed else _rows)(reader, made, cells, count)
    if reader.offset != len(state):
        raise ValueError(f"{len(state) - reader.offset} bytes of the state are of no known meaning")
    return made


def _rows(reader: _Reader, made: bytearray, cells: int, count: int) -> None:
    made += reader.take(4)
    size = reader.number(8)
    made += struct.pack("<Q", size)
    _repeat(made, reader.take(cells * size), count * size)


def _columns(reader: _Reader, made: bytearray, cells: int, count: int) -> None:
    made += reader.take(4)
    size, rows = reader.number(), reader.number()
    made += struct.pack("<II", size, rows)
    for _ in range(rows):
        _repeat(made, reader.take(cells * size), count * size)


def _repeat(made: bytearray, part: bytes, size: int) -> None:
    made += (part * -(-size // len(part)))[:size]
