"""Vocabularies built from GGUF metadata against the published tokenizers."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seamount.errors import TokenizerError
from seamount.tokenizer import Tokenizer
from seamount.tokenizer.gguf_vocabulary import read_gguf
from seamount.tokenizer.pre_tokenizers import gguf_pre_tokenizer

_PIECES = {"a": -1.0, "b": -2.0, "▁": -3.0, "ab": -4.5, "▁a": -4.0, "ba": -5.0, "abab": -6.0, "▁ab": -5.5, "bb": -7.0}


def _sentencepiece_metadata(**changes: Any) -> dict[str, Any]:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *_PIECES]
    types = [2, 3, 3, *[6] * 256, *[1] * len(_PIECES)]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * 259 + list(_PIECES.values()),
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    } | changes


def _slow_sentencepiece(text: str) -> list[str]:
    """SentencePiece by its definition: merge the neighbours whose union scores highest, the leftmost first."""
    symbols = list(("▁" + text).replace(" ", "▁"))
    while True:
        unions = [
            (_PIECES[left + right], -index)
            for index, (left, right) in enumerate(pairwise(symbols))
            if left + right in _PIECES
        ]
        if not unions:
            break
        index = -max(unions)[1]
        symbols[index : index + 2] = [symbols[index] + symbols[index + 1]]
    return [
        piece
        for symbol in symbols
        for piece in ([symbol] if symbol in _PIECES else [f"<0x{byte:02X}>" for byte in symbol.encode()])
    ]


def test_deepseek_v3_equals_the_published_tokenizer(
    deepseek: Tokenizer, deepseek_gguf_metadata: dict[str, Any], texts: list[str]
) -> None:
    ours = Tokenizer.from_gguf(deepseek_gguf_metadata)
    assert ours.vocab_size == deepseek.vocab_size
    assert ours.eos_token_ids == deepseek.eos_token_ids == (1,)
    for text in texts:
        assert ours.encode(text) == deepseek.encode(text)
    marked = "<｜User｜>a<think> 1\n</think><｜end▁of▁sentence｜>"
    assert ours.encode(marked, control_tokens=True) == deepseek.encode(marked, control_tokens=True)


def test_smollm_equals_transformers(smollm: Tokenizer, smollm_gguf: Any, texts: list[str]) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(smollm_gguf.parent, gguf_file=smollm_gguf.name)
    # transformers cuts this vocabulary as GPT-2's; the published SmolLM2 file takes digits one by one, as we do.
    for text in [*texts[:12], *texts[12::4]]:
        wordy = re.sub(r"\d", "", "".join(character for character in text if not character.isnumeric()))
        assert smollm.encode(wordy) == theirs(wordy, add_special_tokens=False)["input_ids"]
    assert len(smollm.encode("a 2024")) == 6


def test_smollm_control_tokens(smollm: Tokenizer) -> None:
    assert (smollm.bos_token_id, smollm.eos_token_ids, smollm.vocab_size) == (1, (2,), 49152)
    assert smollm.encode("<|im_end|>", control_tokens=True) == [2]
    assert 2 not in smollm.encode("<|im_end|>")
    assert smollm.decode(smollm.encode("<|im_end|>")) == "<|im_end|>"


@given(st.text(alphabet="ab  c€", max_size=20))
def test_sentencepiece_equals_its_definition(text: str) -> None:
    backend = read_gguf(_sentencepiece_metadata()).backend
    expected = _slow_sentencepiece(text) if text else []
    assert backend.encode(text, add_special_tokens=False).tokens == expected


@given(st.text(alphabet="ab  c€😀", max_size=20), st.booleans())
def test_sentencepiece_round_trip(text: str, add_prefix: bool) -> None:
    metadata = _sentencepiece_metadata(**{"tokenizer.ggml.add_space_prefix": add_prefix})
    tokenizer = Tokenizer.from_gguf(metadata)
    token_ids = tokenizer.encode(text)
    assert token_ids[0] == tokenizer.bos_token_id == 1
    assert tokenizer.decode(token_ids) == text


@pytest.mark.parametrize(
    ("pre", "text", "words"),
    [
        ("gpt-2", "it's 123 a", ["it", "'s", "Ġ123", "Ġa"]),
        ("smollm", "it's 12 a", ["it", "'s", "Ġ", "1", "2", "Ġa"]),
        ("llama-bpe", "IT'S 12345!\n\n a", ["IT", "'S", "Ġ", "123", "45", "!ĊĊ", "Ġa"]),
        ("qwen2", "IT'S 123", ["IT", "'S", "Ġ", "1", "2", "3"]),
        ("deepseek-r1-qwen", "x 12", ["x", "Ġ", "1", "2"]),
        ("deepseek-llm", "a b, 12\n", ["a", "Ġb", ",", "Ġ", "1", "2", "Ċ"]),
        ("deepseek-coder", "if a_b:\n", ["if", "Ġa", "_", "b", ":", "Ċ"]),
        ("deepseek-v3", "f(x) 1234", ["f", "(x", ")", "Ġ", "123", "4"]),
    ],
)
def test_pre_tokenizers_cut_as_published(pre: str, text: str, words: list[str]) -> None:
    assert [word for word, _ in gguf_pre_tokenizer(pre).pre_tokenize_str(text)] == words


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tokenizer.ggml.model": "rwkv"}, "'rwkv'"),
        ({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "jais", "tokenizer.ggml.merges": []}, "'jais'"),
        ({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.merges": ["a zz"]}, "zz"),
        ({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.merges": ["ab"]}, "merges"),
        ({"tokenizer.ggml.model": "gpt2"}, "tokenizer.ggml.merges"),
        ({"tokenizer.ggml.tokens": None}, "tokenizer.ggml.tokens"),
        ({"tokenizer.ggml.tokens": ["a", "a"]}, "'a' twice"),
        ({"tokenizer.ggml.scores": [1.0]}, "scores"),
        ({"tokenizer.ggml.token_type": [1]}, "token_type"),
        ({"tokenizer.ggml.eos_token_id": 99_999}, "99999"),
        ({"tokenizer.ggml.bos_token_id": "one"}, "bos_token_id"),
    ],
)
def test_unusable_metadata_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(TokenizerError, match=re.escape(named)):
        Tokenizer.from_gguf(_sentencepiece_metadata(**changes))


def test_every_ending_token_counts() -> None:
    metadata = _sentencepiece_metadata(**{"tokenizer.ggml.eot_token_id": 5, "tokenizer.ggml.eom_token_id": 2})
    assert Tokenizer.from_gguf(metadata).eos_token_ids == (2, 5)
