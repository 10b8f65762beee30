"""Streaming detokenisation equals decoding at once, for every token sequence."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seamount.errors import TokenizerError
from seamount.tokenizer import Tokenizer

_SEEDS = st.lists(st.integers(0, 2**31), max_size=30)


def _stream(tokenizer: Tokenizer, token_ids: list[int], skip: bool) -> list[str]:
    detokenizer = tokenizer.stream(skip_control_tokens=skip)
    return [*(detokenizer.push(token_id) for token_id in token_ids), detokenizer.finish()]


@pytest.mark.parametrize("name", ["smollm", "deepseek"])
@given(seeds=_SEEDS, low=st.booleans(), skip=st.booleans())
@settings(max_examples=300, deadline=None)
def test_stream_equals_decode(
    name: str, seeds: list[int], low: bool, skip: bool, request: pytest.FixtureRequest
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    # The low ids are control tokens and single bytes, where the sequences that are no UTF-8 come from.
    bound = 300 if low else tokenizer.vocab_size
    token_ids = [seed % bound for seed in seeds]
    whole = tokenizer.decode(token_ids, skip_control_tokens=skip)
    assert "".join(_stream(tokenizer, token_ids, skip)) == whole
    expected = tokenizer._backend.decode(token_ids, skip_special_tokens=skip)
    assert whole == expected


@pytest.mark.parametrize("name", ["smollm", "deepseek"])
@given(text=st.text(st.characters(max_codepoint=0x3FFFF, exclude_categories=["Cs", "Cc"]), max_size=40))
@settings(max_examples=200, deadline=None)
def test_text_streams_without_half_characters(name: str, text: str, request: pytest.FixtureRequest) -> None:
    # SmolLM2's vocabulary has no tokens for some control characters, nor for the bytes F1 and F2 of high planes.
    tokenizer: Tokenizer = request.getfixturevalue(name)
    pieces = _stream(tokenizer, tokenizer.encode(text), skip=True)
    assert "".join(pieces) == text
    assert sum(piece.count("\ufffd") for piece in pieces) == text.count("\ufffd")
    assert pieces[-1] == ""


def test_a_cut_character_ends_as_a_replacement(smollm: Tokenizer) -> None:
    token_ids = smollm.encode("🦭")
    assert len(token_ids) > 1
    assert _stream(smollm, token_ids[:-1], skip=True) == [""] * (len(token_ids) - 1) + ["\ufffd"]


@pytest.mark.parametrize("token_id", [-1, 129280, 2**40])
def test_ids_outside_the_vocabulary_are_refused(deepseek: Tokenizer, token_id: int) -> None:
    with pytest.raises(TokenizerError, match=str(token_id)):
        deepseek.decode([5, token_id])
    with pytest.raises(TokenizerError, match=str(token_id)):
        deepseek.stream().push(token_id)


def test_markup_that_readers_need_is_not_skipped(deepseek: Tokenizer) -> None:
    token_ids = deepseek.encode("<think>a</think>b<｜end▁of▁sentence｜>", control_tokens=True)
    assert deepseek.decode(token_ids) == "<think>a</think>b"
    assert deepseek.decode(token_ids, skip_control_tokens=False).endswith("<｜end▁of▁sentence｜>")
