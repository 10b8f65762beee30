"""Tokens to text, all at once or as they arrive."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable
from typing import Any

import tokenizers

from seamount.errors import TokenizerError


class TokenBytes:
    """The bytes of each token of a vocabulary.

    Byte-level vocabularies spell each byte as one printable character; SentencePiece ones write U+2581 for a space and
    <0x0A> for a byte.
    """

    def __init__(self, backend: tokenizers.Tokenizer, vocab_size: int) -> None:
        self._backend = backend
        self._vocab_size = vocab_size
        self._known: dict[int, bytes] = {}
        steps = _decoder_steps(backend)
        kinds = {step["type"] for step in steps}
        self._is_byte_level = "ByteLevel" in kinds
        if not self._is_byte_level and not kinds & {"ByteFallback", "Metaspace", "Replace"}:
            raise TokenizerError(
                f"tokenizer.json decodes with {', '.join(sorted(kinds)) or 'nothing'}; "
                "implemented are ByteLevel, and Metaspace or Replace with ByteFallback"
            )
        self._byte_fallback = "ByteFallback" in kinds
        self.drops_first_space = any(
            (step["type"] == "Strip" and step.get("start", 0) > 0)
            or (step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never")
            for step in steps
        )

    def __call__(self, token_id: int) -> bytes:
        """Errors: TokenizerError for an id outside the vocabulary."""
        known = self._known.get(token_id)
        if known is None:
            known = self._known[token_id] = self._spell(token_id)
        return known

    def _spell(self, token_id: int) -> bytes:
        token = self._backend.id_to_token(token_id) if 0 <= token_id < self._vocab_size else None
        if token is None:
            raise TokenizerError(
                f"token id {token_id} is not in the vocabulary of {self._vocab_size} tokens; "
                "the tokens come from another model, or the model's output is wider than its tokenizer"
            )
        if self._is_byte_level:
            spelt = [_BYTE_OF_CHARACTER.get(character) for character in token]
            # Added tokens are stored as they read; a character outside the alphabet tells.
            return token.encode() if None in spelt else bytes(byte for byte in spelt if byte is not None)
        if self._byte_fallback and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            try:
                return bytes([int(token[3:5], 16)])
            except ValueError:
                return token.encode()
        return token.replace("▁", " ").encode()

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of a whole sequence; bytes that are no UTF-8 become U+FFFD."""
        text = b"".join(map(self, token_ids)).decode("utf-8", errors="replace")
        return text.removeprefix(" ") if self.drops_first_space else text


class Detokenizer:
    """Turns tokens into text one at a time.

    Equals: what the pushes and finish() give together is what decode gives for all the tokens.
    Cost: one push looks at its own token's bytes and at most three older ones.
    """

    def __init__(self, token_bytes: TokenBytes, skipped_ids: frozenset[int]) -> None:
        self._token_bytes = token_bytes
        self._skipped_ids = skipped_ids
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._drops_space = token_bytes.drops_first_space

    def push(self, token_id: int) -> str:
        """The text that this token completes: possibly none, never half a character.

        Errors: TokenizerError for an id outside the vocabulary.
        """
        data = self._token_bytes(token_id)
        return "" if token_id in self._skipped_ids else self._emit(self._decoder.decode(data))

    def finish(self) -> str:
        """What is left at the end: U+FFFD where the last character was cut off."""
        return self._emit(self._decoder.decode(b"", final=True))

    def _emit(self, text: str) -> str:
        if self._drops_space and text:
            self._drops_space = False
            return text.removeprefix(" ")
        return text


def _decoder_steps(backend: tokenizers.Tokenizer) -> list[dict[str, Any]]:
    if backend.decoder is None:
        return []
    state = json.loads(backend.decoder.__getstate__())
    return list(state["decoders"]) if state["type"] == "Sequence" else [state]


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable Latin-1 stands for itself, the others in order for U+0100 and up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


_BYTE_OF_CHARACTER = _byte_alphabet()
